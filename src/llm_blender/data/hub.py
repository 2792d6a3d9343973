"""Download the files of data sets on the Hugging Face Hub: JSON Lines, JSON or Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from llm_blender._hub import endpoint, offline, wait_for_hub
from llm_blender.errors import NotFoundError

_NAME = re.compile(r"[\w][\w.-]*/[\w.-]+")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".json", ".json.gz", ".json.zst")
_FILES = (*_SUFFIXES, ".ndjson", ".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst", ".txt")
_CONVERTED = "refs/convert/parquet"
"""Branch of the Hub's Parquet copy of every public data set: CONFIG/SPLIT/0000.parquet."""
_SAME = {"val": "validation", "valid": "validation", "dev": "validation"}
_DESCRIPTIONS = {"dataset_infos.json", "dataset_info.json", "state.json"}


def is_hub_name(source: str) -> bool:
    """Return whether a text is ``owner/name``, and no file or folder has that name."""
    return bool(_NAME.fullmatch(source)) and not source.endswith(_FILES) and not Path(source).exists()


def hub_files(name: str, split: str | None = None) -> list[Path]:
    """Download the files of a data set, unless the Hub's cache holds them.

    These are its JSON Lines, JSON or Parquet files; if it has none, those of the Hub's Parquet copy.

    Args:
        name: ``owner/name``.
        split: split in the names of the files; ``val``, ``dev`` and ``validation`` are synonyms. None means all.

    Raises:
        NotFoundError: there is no such data set or split, or it cannot be downloaded; the message names the places
            searched.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    hub = endpoint()
    if offline():
        return _cached(name, split, "offline mode is on")
    api = HfApi(endpoint=hub)
    try:
        wait_for_hub(f"{hub}/api/datasets/{name}")
        listings = {"main": api.list_repo_files(name, repo_type="dataset")}
        if not _data_files(listings["main"]):
            try:
                listings = {_CONVERTED: api.list_repo_files(name, repo_type="dataset", revision=_CONVERTED)}
            except RevisionNotFoundError:
                raise NotFoundError(
                    f"The data set {name} on {hub} holds neither JSON nor Parquet: download it by hand."
                ) from None
        ((revision, listed),) = listings.items()
        wanted = _of_split(name, _data_files(listed), split)
        return [Path(api.hf_hub_download(name, file, repo_type="dataset", revision=revision)) for file in wanted]
    except RepositoryNotFoundError:
        raise NotFoundError(
            f"There is no file {name} and no data set {name} on {hub}, or it wants a login (HF_TOKEN)."
        ) from None
    except (OSError, httpx.HTTPError, httpx.InvalidURL, HfHubHTTPError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no answer"
        return _cached(name, split, f"not fetched from {hub} ({type(error).__name__}: {reason})")


def _cached(name: str, split: str | None, why: str) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise NotFoundError(
            f"There is no file {name}; as a data set it is not in the Hub's cache, and {why}."
        ) from None
    found = _data_files(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [folder / file for file in _of_split(name, found, split)]


def _data_files(files: Iterable[str]) -> list[str]:
    return sorted(
        file
        for file in files
        if file.lower().endswith(_SUFFIXES)
        and PurePosixPath(file).name not in _DESCRIPTIONS
        and not any(part.startswith(".") for part in PurePosixPath(file).parts)
    )


def _of_split(name: str, files: list[str], split: str | None) -> list[str]:
    chosen = [file for file in files if split is None or _SAME.get(split, split) in _words(file)]
    if not chosen:
        raise NotFoundError(
            f"The data set {name} has no split {split!r}; its files: {', '.join(files) or 'none that can be read'}."
        )
    return chosen


def _words(file: str) -> set[str]:
    return {_SAME.get(word, word) for word in re.split(r"[^a-z0-9]+", file.lower())}
