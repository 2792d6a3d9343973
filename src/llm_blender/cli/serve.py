"""``blend serve``: the ensemble as an OpenAI-compatible service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_blender.cli._options import ServeOptions, with_options
from llm_blender.cli._output import note


@with_options
def serve(
    *,
    host: Annotated[
        str | None, typer.Option(help="Bind to this address; any but loopback requires a key [default: 127.0.0.1].")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Listen on this port; 0 picks a free one [default: 8000].")
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option("--keys-file", metavar="FILE", help="Read SHA-256 hashes of the clients' keys, one a line."),
    ] = None,
    playground: Annotated[
        bool | None,
        typer.Option("--playground/--no-playground", help="Serve the page at / [default: as configured; on]."),
    ] = None,
    options: ServeOptions,
    logs: Annotated[bool, typer.Option("--logs", help="Log each request to standard error.")] = False,
) -> None:
    """Serve the ensemble behind an OpenAI-compatible API.

    Clients change only their base_url. Keys come from the environment variable LLM_BLENDER_KEYS, separated by commas,
    or from a file of hashes. On SIGTERM, new requests are refused and running ones are drained.
    """
    from llm_blender.cli._rankers import note_judge
    from llm_blender.cli.ask import learned_priors, load_ensemble
    from llm_blender.server import most_at_once
    from llm_blender.server import serve as run

    loaded = options.load_config()
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
        most = most_at_once(ensemble)
        if most is not None and most < server.concurrency:
            note(
                f"the LLMs take {most} requests at a time, and further ones wait: `concurrency` of an [[llm]] is the "
                f"number of its calls at once, that of [server] ({server.concurrency}) the number of requests"
            )

    ensemble = load_ensemble(loaded, options)
    note_judge(ensemble.judge, (member.llm.name for member in ensemble.members))
    learned_priors(ensemble)
    run(
        ensemble,
        server,
        folder=None if loaded.path is None else loaded.path.parent,
        started=started,
        logs=logs,
    )
