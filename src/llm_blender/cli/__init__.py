"""The command ``blend``.

Each command is a module, which is imported when the command runs, and a line below adds it. ``blend --help`` imports
none of them; a module imports heavy packages (numpy, torch, onnxruntime, openai, rich) inside its functions, so that
its own help is fast too.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_group

from llm_blender.cli._output import BlendGroup, end_unexpected, show_warnings, terminate

__all__ = ["app", "main"]

# The first sentence of each command's help: its module, which holds the whole help, is not imported to list it.
_COMMANDS = {
    "ask": "Query several LLMs, rank their answers in pairs, and print the best one or a fusion of the best ones.",
    "init": "Write a blend.toml from the LLMs that run on this machine and the API keys in the environment.",
    "check": "Try each LLM with short questions: does it answer, how fast, at what cost, and what does it support.",
    "chat": "Chat with the LLMs: each message is answered as by `blend ask`, in view of the conversation.",
    "logs": "List the answers of `blend ask` and `blend chat`, newest first, or show one whole.",
    "rank": "Rank the candidates of each row of FILE.",
    "compare": "Compare two answers: which is better, and with what probability.",
    "fuse": "Fuse the best candidates of each row of FILE into one answer.",
    "run": "Generate, rank, and pick or fuse for every prompt of FILE.",
    "plan": "Estimate what `blend rank`, `fuse` or `run` will take for FILE: work, dollars and hours.",
    "serve": "Serve the ensemble behind an OpenAI-compatible API.",
    "export": "Convert a ranker to ONNX, or a LoRA adapter to an embedded fuser, to run without torch.",
    "train": "Train rankers and fusers.",
    "bench": "Measure rankers and fused answers against baselines on the same rows.",
    "data": "Build, import and check data; make preferences.",
    "models": "List, download and find embedded models.",
    "priors": "Fit and show the strengths of LLMs.",
    "votes": "Export votes of the playground.",
    "config": "Show the configuration.",
}


class _Command(TyperCommand):
    """A command whose module is imported when it runs: one function, or a group of them named ``app``."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the options of the whole command, which the context then runs."""
        return self._whole().make_context(*args, **options)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that only the whole command has, such as the commands of a group."""
        return getattr(self._whole(), name)

    def _whole(self) -> Any:
        module, parent = import_module(f"{__name__}.{self.name}"), typer.Typer(rich_markup_mode=None)
        if "app" in vars(module):
            parent.add_typer(module.app, name=self.name)
        else:
            parent.command(self.name)(getattr(module, str(self.name)))
        return get_group(parent).commands[str(self.name)]


app = typer.Typer(
    name="blend",
    cls=BlendGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda name: "out" if name == "output" else name},  # --output is --out
)
for _name, _help in _COMMANDS.items():
    app.command(_name, cls=_Command, help=_help)(lambda: None)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"llm-blender {version('llm-blender')}")
        raise typer.Exit


@app.callback()
def _blend(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Query several LLMs, rank their answers by comparing them in pairs, and return the best or fuse the best ones.

    Results go to standard output, progress to standard error. Exit status: 0 done, 1 the work failed, 2 the input
    or the configuration is wrong, 3 done but degraded (with --strict), 130 interrupted.
    """
    show_warnings()


def main() -> None:
    """Run ``blend`` with the arguments of this process, and exit."""
    signal.signal(signal.SIGTERM, terminate)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # a search of all installed packages
    gc.set_threshold(50_000)  # what is imported is no garbage
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Output is UTF-8 whatever the locale; file names may hold other bytes, which are kept.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app()
    except Exception as error:
        end_unexpected(error)
