"""Where a checkpoint's files are: bundled, in a folder, or on the Hub."""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path

from llm_blender.errors import CheckpointError, InputError, NotFoundError

__all__ = ["BUNDLED", "copy_checkpoint", "find_checkpoint", "onnx_file"]

BUNDLED = "bundled"
"""Name of the ranker that comes with the package."""

_FILES = ["config.json", "tokenizer.json", "model.safetensors", "onnx/*.onnx", "README.md"]
_PATIENCE = 3  # seconds for the Hub's first answer


def find_checkpoint(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint; from the Hub it is fetched once.

    Args:
        name: ``bundled``, a folder, or a Hub repository (``owner/name``).
        revision: branch, tag or commit on the Hub.

    Raises:
        NotFoundError: it is nowhere; the message says where it was looked for.
    """
    if name == BUNDLED:
        return Path(str(resources.files("llm_blender.bundled") / "ranker"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    looked = f"no folder {folder.absolute()}"
    if os.fspath(name).count("/") != 1 or folder.is_absolute() or os.fspath(name).startswith("."):
        raise NotFoundError(f"No ranker {os.fspath(name)!r}: {looked}, and it is not a Hub name (owner/name).")
    return _from_hub(os.fspath(name), revision, looked)


def _from_hub(name: str, revision: str | None, looked: str) -> Path:
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def snapshot(local_only: bool) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=local_only))

    try:
        return snapshot(local_only=True)
    except HFValidationError as error:
        raise NotFoundError(f"No ranker {name!r}: {looked}, and it is not a Hub name ({error}).") from error
    except LocalEntryNotFoundError:
        pass
    if os.environ.get("LLM_BLENDER_OFFLINE") == "1" or constants.HF_HUB_OFFLINE:
        raise NotFoundError(f"No ranker {name!r}: {looked}, not in the Hub's cache, and offline mode is on.")
    try:
        # The Hub's own client waits and retries for much longer than a person does.
        httpx.head(f"{constants.ENDPOINT}/api/models/{name}", timeout=_PATIENCE, follow_redirects=True)
        return snapshot(local_only=False)
    except (OSError, httpx.HTTPError, httpx.InvalidURL, HfHubHTTPError, ValueError) as error:  # ValueError: no JSON
        raise NotFoundError(
            f"No ranker {name!r}: {looked}, not in the Hub's cache, and not fetched from {constants.ENDPOINT} "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'})."
        ) from error


def onnx_file(folder: Path, precision: str) -> Path:
    """The ONNX model of a checkpoint, ``int8`` or ``fp32``.

    Raises:
        CheckpointError: there is none.
    """
    path = folder / "onnx" / f"model_{precision}.onnx"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no onnx/{path.name}: make it with `blend export {folder} DIR`, "
            "or use the torch backend (pip install 'llm-blender[torch]')."
        )
    return path


def copy_checkpoint(folder: Path, target: Path) -> None:
    """Copy the files of a checkpoint, and nothing else that lies beside them.

    Raises:
        InputError: the target cannot be written to.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to {target}: {error.strerror}.") from error
    if target.samefile(folder):
        return
    for pattern in _FILES:
        for path in folder.glob(pattern):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
