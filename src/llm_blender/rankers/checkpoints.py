"""Files of a checkpoint: finding them (bundled, in a folder, on the Hub) and reading them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tokenizers import Tokenizer

from llm_blender._hub import FILES, PICKLED_FILES, check_push, file_sha256, find_folder, from_hub, push_folder
from llm_blender.errors import CheckpointError, InputError, NotFoundError

if TYPE_CHECKING:
    from torch import Tensor

BUNDLED = "bundled"
"""Name of the bundled ranker."""

_WEIGHTS, _PICKLED = "model.safetensors", "pytorch_model.bin"


def find_checkpoint(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a checkpoint; fetch it from the Hub once.

    Args:
        name: ``bundled``, a folder, or a Hub repository (``owner/name``).
        revision: branch, tag or commit on the Hub.

    Raises:
        NotFoundError: there is no such checkpoint; the message lists the places searched.
    """
    if name == BUNDLED:
        return Path(str(resources.files("llm_blender.bundled") / "ranker"))
    return find_folder("ranker", name, revision)


def find_config(name: str) -> Path:
    """Return the path of a model's ``config.json``, without fetching its weights.

    Args:
        name: a folder, or a Hub repository.

    Raises:
        NotFoundError: there is no such checkpoint; the message lists the places searched.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = from_hub("ranker", name, None, files=["config.json"])
    return folder / "config.json"


def is_classifier(values: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` is that of a sequence classifier of transformers."""
    return any(str(name).endswith("ForSequenceClassification") for name in values.get("architectures") or ())


# Models whose positions count from the padding token's id + 1.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text")


def position_limit(values: Mapping[str, Any]) -> int | None:
    """Return the maximum tokens of a sequence by a ``config.json``'s table of positions; None if they are relative."""
    positions = values.get("max_position_embeddings") or values.get("n_positions")
    # DeBERTa's distances end in buckets: any length can be read.
    if not isinstance(positions, int) or positions <= 0 or values.get("position_biased_input") is False:
        return None
    offset = int(values.get("pad_token_id") or 0) + 1 if values.get("model_type") in _OFFSET_POSITIONS else 0
    return positions - offset


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
        CheckpointError: the file is missing or not a JSON object.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no checkpoint: it holds no config.json.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return values


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer from ``tokenizer.json``, without truncation and padding.

    It is not loaded by transformers, whose version 5 loses the normaliser of a sentencepiece model. Tokens added to a
    vocabulary become special tokens, so that a text that contains one can be read as plain text.

    Raises:
        CheckpointError: the file is missing or unreadable.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        here = repr(str(folder))
        remedy = f"; create it with transformers 4, AutoTokenizer.from_pretrained({here}).save_pretrained({here})"
        raise CheckpointError(f"{folder} holds no tokenizer.json{remedy if any(folder.glob('*.model')) else ''}.")
    try:
        # Only an added token has this key: the file is parsed once, by the library.
        text = re.sub(r'("special"\s*:\s*)false', r"\1true", path.read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Load the weights by name, in float32: ``model.safetensors``, or a ``pytorch_model.bin`` that holds only tensors.

    Raises:
        CheckpointError: the file is missing or truncated, or the ``.bin`` would run code.
    """
    import safetensors.torch
    import torch

    path = next((folder / name for name in (_WEIGHTS, _PICKLED) if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder} holds no {_WEIGHTS} (nor {_PICKLED}).")
    try:
        if path.name == _WEIGHTS:
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        # Buffers that old versions of transformers wrote; they hold 0, 1, 2, …
        return {name: tensor.float() for name, tensor in state.items() if not name.endswith("embeddings.position_ids")}
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not loaded: it holds more than tensors, or is truncated. Convert it to {_WEIGHTS} if you "
            "trust it."
        ) from error
    except Exception as error:  # safetensors' errors, and any that a damaged archive causes
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def has_onnx(folder: Path) -> bool:
    """Return whether a checkpoint holds ONNX models."""
    return any(folder.glob("onnx/*.onnx"))


def onnx_file(folder: Path, precision: str, name: str = "model") -> Path:
    """Return the path of a checkpoint's ONNX model, or of a named part of it, in ``int8`` or ``fp32``.

    Raises:
        CheckpointError: there is no such file.
    """
    path = folder / "onnx" / f"{name}_{precision}.onnx"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no onnx/{path.name}: create it with `blend export {folder} DIR`, "
            "or use the torch backend (pip install 'llm-blender[torch]')."
        )
    return path


_SEEN = "seen.json"


def write_seen(folder: Path, keys: Iterable[str]) -> None:
    """Record, as hashes, the instructions that a ranker was trained or calibrated on; no copy and no push has them.

    Args:
        folder: the checkpoint.
        keys: normalised prompts, see `llm_blender.data.normalized_key`.
    """
    (folder / _SEEN).write_text(json.dumps(sorted({_seen_hash(key) for key in keys})), encoding="utf-8")


def count_seen(folder: Path, keys: Iterable[str]) -> int:
    """Count the different instructions that are recorded by `write_seen`; 0 without a record."""
    try:
        seen = set(json.loads((folder / _SEEN).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return 0
    return len(seen & {_seen_hash(key) for key in keys})


def _seen_hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]


def weights_hash(folder: Path) -> str:
    """Return the sha256, as hex, of all that a ranker's results depend on: weights, tokenizer and ``config.json``.

    Tables name its first 12 digits, so that a reader sees which weights were measured.
    """
    patterns = ("*.safetensors", "*.bin", "onnx/*.onnx", "tokenizer.json", "config.json")
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()


def ranker_identity(name: str) -> str | None:
    """Identify a ranker's checkpoint at little cost, by its configuration, and the sizes and samples of its files.

    Training changes nearly all weights, so that a few blocks of them show another model of the same size.

    Args:
        name: for `llm_blender.rankers.load_ranker`.

    Returns:
        A sha256 as hex; None for a ranker without a checkpoint here.
    """
    from llm_blender.rankers.heuristics import HEURISTICS

    if name in HEURISTICS:
        return None
    try:
        folder = find_checkpoint(name.removeprefix("mlm:"))
    except NotFoundError:
        return None
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".onnx"))
    config = folder / "config.json"
    parts = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size} {_sample(path)}" for path in files]
    return hashlib.sha256(
        "\n".join([config.read_text("utf-8") if config.is_file() else "", *parts]).encode()
    ).hexdigest()


def _sample(path: Path) -> str:
    """Return the sha256, as hex, of blocks at equal distances in a file, the last one at its end."""
    digest, block, count = hashlib.sha256(), 4096, 64
    room = max(path.stat().st_size - block, 0)
    with path.open("rb") as file:
        for number in range(count):
            file.seek(room * number // (count - 1))
            digest.update(file.read(block))
    return digest.hexdigest()


def copy_checkpoint(folder: Path, target: Path) -> None:
    """Copy the files of a checkpoint, and no others in its folder.

    Raises:
        InputError: the target is not writable.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to {target}: {error.strerror}.") from error
    if target.samefile(folder):
        return
    for pattern in (*FILES, *PICKLED_FILES):
        for path in folder.glob(pattern):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


class Pretrained(ABC):
    """A ranker with a checkpoint that can be saved and pushed."""

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint to a folder that `from_pretrained` reads."""

    def push_to_hub(self, repo: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Push the checkpoint with its card to the Hub, where `from_pretrained` finds it by its name.

        Args:
            repo: name of the repository, ``owner/name``; it is made if there is none.
            private: whether a new repository is private; None for the owner's default.
            token: of the user; None for ``HF_TOKEN`` or the login of huggingface_hub.

        Returns:
            URL of the repository.

        Raises:
            InputError: the name is none, there is no token, or offline mode is on.
            WorkError: the Hub cannot be reached, or refuses it.
        """
        check_push(repo, token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(Path(folder), repo, private=private, token=token)


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that begin, end and pad a sequence."""

    cls: int
    sep: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Look up the tokens by the names that BERT or RoBERTa give them.

        Raises:
            CheckpointError: the vocabulary lacks one of them.
        """
        return cls(
            token_id(tokenizer, "[CLS]", "<s>"),
            token_id(tokenizer, "[SEP]", "</s>"),
            token_id(tokenizer, "[PAD]", "<pad>"),
        )


def token_id(tokenizer: Tokenizer, *names: str) -> int:
    """Return the id of the first of these tokens in the vocabulary.

    Raises:
        CheckpointError: the vocabulary has none of them.
    """
    found = next((token for token in map(tokenizer.token_to_id, names) if token is not None), None)
    if found is None:
        raise CheckpointError(f"The tokenizer has no token {' or '.join(names)}: it is not this model's.")
    return found
