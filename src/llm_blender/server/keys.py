"""Who may ask: the keys of the clients."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from llm_blender.config import ServerConfig
from llm_blender.errors import ConfigError

__all__ = ["Keys", "is_loopback"]

_HASH = re.compile(r"[0-9a-f]{64}")


class Keys:
    """SHA-256 hashes of the keys; without any, everybody may ask.

    Args:
        hashes: in hex.
    """

    def __init__(self, hashes: Iterable[str] = ()) -> None:
        self._hashes = [bytes.fromhex(value) for value in hashes]

    @classmethod
    def of(cls, config: ServerConfig, environment: Mapping[str, str], folder: Path) -> Self:
        """Those of the environment and of the file.

        Raises:
            ConfigError: the file cannot be read, a line of it is no SHA-256, or there is no key where some should be.
        """
        given = environment.get(config.keys_env)
        keys = [key.strip() for key in (given or "").split(",") if key.strip()]
        if given is not None and not keys:
            raise ConfigError(f"{config.keys_env} is set and holds no key: put one there, or unset it.")
        hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
        if config.keys_file is not None:
            hashes += _read(folder / Path(config.keys_file).expanduser())
        return cls(hashes)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def know(self, authorization: bytes) -> bool:
        """Whether a header ``Authorization: Bearer KEY`` holds one of the keys; takes as long for a wrong one."""
        return self.owner(authorization) is not None

    def owner(self, authorization: bytes) -> str | None:
        """A name for who holds the key of such a header, made of its hash; None if it is not known."""
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        known = [hmac.compare_digest(digest, each) for each in self._hashes]
        return digest.hex()[:16] if scheme.lower() == b"bearer" and any(known) else None


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the file of the keys cannot be read ({error}).") from None
    hashes = []
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip().lower()
        if word and not _HASH.fullmatch(word):
            raise ConfigError(f"{path}, line {number}: this is no SHA-256 in hex; `sha256sum` makes one of a key.")
        if word:
            hashes.append(word)
    if not hashes:
        raise ConfigError(f"{path}: there is no key in it; a line holds the SHA-256 of one, in hex.")
    return hashes
