"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "BackendOption",
    "DeviceOption",
    "FuserOption",
    "JsonOption",
    "PrecisionOption",
    "PriorsOption",
    "RankerOption",
]

FuserOption = Annotated[
    str | None,
    typer.Option(
        "--fuser",
        metavar="NAME",
        help="`chat` (the first LLM), `chat:NAME`, `embedded` (the embedded LLM with the bundled adapter), "
        "`embedded:DIR`, a folder, a Hub repository, `consensus` (what the others agree on goes into the best "
        "candidate), or `longest` [default: as configured; where only the embedded LLM answers, embedded, else chat].",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RankerOption = Annotated[
    str, typer.Option("--ranker", metavar="NAME", help="`bundled`, a folder, or a Hub repository (owner/name).")
]
BackendOption = Annotated[
    Literal["onnx", "torch"] | None,
    typer.Option("--backend", help="What runs the ranker; torch is an extra.", show_default="onnx"),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps, …; chooses the torch backend.")
]
PrecisionOption = Annotated[Literal["int8", "fp32"], typer.Option("--precision", help="Of the onnx backend.")]
PriorsOption = Annotated[
    Path | None,
    typer.Option(
        "--priors",
        metavar="FILE",
        help="Add the strengths of the LLMs to the evidence; `blend priors fit` learns them.",
    ),
]
