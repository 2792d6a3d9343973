"""``python -m llm_blender``: the command ``blend``."""

from llm_blender.cli import main

if __name__ == "__main__":
    main()
