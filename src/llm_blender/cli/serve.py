"""``blend serve``: the ensemble as an OpenAI-compatible service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_blender.cli._output import note
from llm_blender.cli.config import ConfigOption

__all__ = ["serve"]


def serve(
    host: Annotated[
        str | None, typer.Option(help="The address to bind to; any but loopback needs a key [default: 127.0.0.1].")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one [default: 8000].")] = None,
    llm: Annotated[
        list[str] | None, typer.Option(help="Ask this LLM, as in `blend ask`. Repeatable [default: all configured].")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("-n", min=1, max=64, help="Answers from each LLM [default: as configured; 5].")
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option("--keys-file", metavar="FILE", help="SHA-256 hashes of the clients' keys, one a line."),
    ] = None,
    playground: Annotated[
        bool | None,
        typer.Option("--playground/--no-playground", help="The page at / [default: as configured; with it]."),
    ] = None,
    config: ConfigOption = None,
    logs: Annotated[bool, typer.Option("--logs", help="Write a line for each request to standard error.")] = False,
) -> None:
    """Serve the ensemble behind an OpenAI-compatible API.

    Clients need one change: their base_url. Keys come from the environment variable LLM_BLENDER_KEYS, separated by
    commas, or from a file of hashes. On SIGTERM, requests under way are brought to their end first.
    """
    from llm_blender.cli.ask import make_ensemble
    from llm_blender.config import load_config
    from llm_blender.server import serve as run

    loaded = load_config(config)
    given = {
        "host": host,
        "port": port,
        "keys_file": None if keys_file is None else str(keys_file.absolute()),
        "playground": playground,
    }
    server = loaded.server.model_copy(update={key: value for key, value in given.items() if value is not None})

    def started(url: str) -> None:
        note(f"serving at {url} (interrupt with ctrl-C)")
        if server.playground:
            note(f"the playground is at {url.removesuffix('v1')}")

    run(
        make_ensemble(loaded, llm or [], samples),
        server,
        folder=None if loaded.path is None else loaded.path.parent,
        started=started,
        logs=logs,
    )
