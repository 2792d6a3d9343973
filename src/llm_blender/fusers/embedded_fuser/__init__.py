"""EmbeddedFuser: a fuser by a LoRA adapter of the embedded LLM, run by llama.cpp."""

from llm_blender.fusers.embedded_fuser.fuser import AdaptableLLM, Base, EmbeddedFuser, Settings

__all__ = ["AdaptableLLM", "Base", "EmbeddedFuser", "Settings"]
