"""``blend export``: convert trained weights to files that run without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import note, print_json
from llm_blender.errors import InputError, MissingExtraError


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A ranker: `bundled`, a folder, or a Hub repository; or the folder of a LoRA adapter.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the whole checkpoint.")],
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Folder or Hub name of the encoder's config.json, for a ranker that names none."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="For an adapter: its base, an embedded model or GGUF file [default: smollm2-135m]."
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=64, help="For an adapter: tokens of the prompt [default: as trained; 3584].")
    ] = None,
    candidate_max_length: Annotated[
        int | None, typer.Option(min=1, help="For an adapter: tokens of each candidate [default: as trained; 512].")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="For an adapter: maximum tokens of the answer [default: as trained; 512].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a ranker to ONNX, or a LoRA adapter to an embedded fuser, to run without torch.

    DIR gets a ranker's whole checkpoint, with ONNX models in float32 and int8 made from its weights. A LoRA adapter of
    a causal Llama becomes a GGUF adapter that llama.cpp applies to the embedded model, for `--fuser embedded:DIR`.

    JSON: {output, files}.
    """
    lengths = {
        "max_length": max_length,
        "candidate_max_length": candidate_max_length,
        "max_new_tokens": max_new_tokens,
    }
    if (Path(checkpoint) / "adapter_config.json").is_file():
        if backbone is not None:
            raise InputError(f"{checkpoint} is a LoRA adapter, which has no --backbone: leave it out.")
        files = _fuser(Path(checkpoint), folder, base, lengths)
    elif base is not None or any(lengths.values()):
        raise InputError(f"{checkpoint} is not the folder of a LoRA adapter: leave out --base and the lengths.")
    else:
        files = _ranker(checkpoint, folder, backbone)
    if as_json:
        print_json({"output": str(folder), "files": [str(file) for file in files]})
    else:
        for file in files:
            note(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")


def _ranker(checkpoint: str, folder: Path, backbone: str | None) -> list[Path]:
    try:
        from llm_blender.rankers.pair_ranker.export import export_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("Export to ONNX", "train") from error
    return export_checkpoint(checkpoint, folder, backbone)


def _fuser(adapter: Path, folder: Path, base: str | None, lengths: dict[str, int | None]) -> list[Path]:
    try:
        from llm_blender.fusers.embedded_fuser.export import export_fuser
    except ModuleNotFoundError as error:
        raise MissingExtraError("Export of a LoRA adapter", "lora") from error
    from llm_blender.cli.ask import fetch_model
    from llm_blender.llms.models import DEFAULT_MODEL

    model = base or DEFAULT_MODEL
    file = fetch_model(model)
    local = Path(model).expanduser().is_file()
    return export_fuser(adapter, folder, model=str(file.absolute()) if local else model, base=file, **lengths)
