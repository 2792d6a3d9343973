"""Record of an ensemble: who was compared with whom, and who won, in the SQLite file of a `Store`.

An entry is a few hundred bytes: a digest of the prompt, the kind of prompt, the LLMs, the first of them, and how far
each one beat each other one. It holds no text. It never holds the influence of `Priors`: strengths that are learned
from a record would otherwise confirm themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import StoreError
from llm_blender.ranking import Interval, Priors, games_from_ranking
from llm_blender.ranking.aggregation import Floats
from llm_blender.ranking.priors import shrunk_strengths
from llm_blender.store import Store
from llm_blender.types import LLM, Instruction, Ranking, to_messages

__all__ = ["KINDS", "LEAST", "Kind", "Learned", "Record", "Standing", "models_of"]

Kind = Literal["answer", "code", "other"]
"""Kind of prompt: candidates agree or disagree on a final answer; most of them hold a block of code; any other."""
KINDS: tuple[Kind, ...] = get_args(Kind)

LEAST = 50
"""Minimum number of recorded rankings for priors: there they have four fifths of their gain, see docs/priors.md."""
_MOST = 5000  # entries of a record
_DECIMALS = 9
_WINS = "<f2"
_SIGMAS = 1.96  # of a 95 % interval

_LLM = tuple[str, str]  # name, model
_Fitted = tuple[Priors | None, dict[str, Interval]]


def models_of(llms: Sequence[LLM]) -> dict[str, str]:
    """Return the model of each LLM by the LLM's name: an LLM of the same name with another model is another one."""
    return {llm.name: str(llm.identity.get("model", llm.name)) for llm in llms}


@dataclass(frozen=True)
class Standing:
    """The results of one LLM in a record.

    Attributes:
        prompts: number of rankings with an answer of it.
        first: number of those that it leads.
        strength: in logits, relative to the mean of the LLMs; None without a game.
        ci95: interval of the strength, from the Gaussian approximation of its posterior.
        kinds: prompts and first places by `Kind`.
    """

    prompts: int = 0
    first: int = 0
    strength: float | None = None
    ci95: Interval | None = None
    kinds: Mapping[Kind, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(KINDS, (0, 0)))


@dataclass(frozen=True)
class Learned:
    """The content of a record about some LLMs.

    Attributes:
        rankings: number of rankings with a game between two of these LLMs.
        priors: strengths of the LLMs; None without a game.
        standings: by the LLM's name.
    """

    rankings: int = 0
    priors: Priors | None = None
    standings: Mapping[str, Standing] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Number of rankings that are missing for priors."""
        return max(LEAST - self.rankings, 0)

    @property
    def usable(self) -> Priors | None:
        """The priors if the record is large enough for them."""
        return None if self.missing else self.priors

    @property
    def message(self) -> str:
        """One line for people."""
        if self.missing:
            return f"no priors: {self.rankings:,} rankings of these LLMs are recorded, {self.missing:,} more are needed"
        return f"priors from {self.rankings:,} recorded rankings"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: whether the priors are used, and how many rankings there are and are missing."""
        return {"used": self.usable is not None, "rankings": self.rankings, "missing": self.missing}


class Record:
    """The outcomes of an ensemble's rankings that a store keeps, at most 5,000, the newest ones.

    Args:
        store: the store, in whose file the record is.

    Raises:
        StoreError: by every method: the file cannot be opened, read or written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __len__(self) -> int:
        """Return the number of rankings."""
        with self._store.connection() as connection:
            return int(connection.execute("SELECT count(*) FROM rankings").fetchone()[0])

    def keep(
        self,
        prompt: Instruction,
        models: Mapping[str, str],
        ranking: Ranking,
        names: Sequence[str | None],
        texts: Sequence[str],
    ) -> None:
        """Keep the outcome of a ranking, in place of an earlier one of the same prompt and the same LLMs.

        A ranking without a decided comparison of two LLMs has no outcome and is not kept, nor is one whose best
        candidate has no LLM.

        Args:
            prompt: a text or a conversation; only its digest is kept.
            models: model of every LLM of the prompt by its name, with or without an answer, see `models_of`.
            ranking: of the candidates, without priors.
            names: LLM of each candidate.
            texts: the candidates, which decide on the kind.
        """
        games, first = games_from_ranking(ranking, names), names[ranking.best]
        if not games or first is None:
            return
        llms = sorted({name for name in names if name is not None})
        place = {name: i for i, name in enumerate(llms)}
        wins = np.zeros((len(llms), len(llms)))
        for game in games:
            wins[place[game.a], place[game.b]] += game.weight * game.share
            wins[place[game.b], place[game.a]] += game.weight * (1 - game.share)
        row = (
            _digest(prompt, models),
            _kind(ranking, texts),
            json.dumps([(name, models.get(name, name)) for name in llms]),
            llms.index(first),
            wins.astype(_WINS).tobytes(),
        )
        with self._store.connection() as connection:
            connection.execute(
                "INSERT INTO rankings (key, kind, llms, best, wins) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET "
                "kind = excluded.kind, llms = excluded.llms, best = excluded.best, wins = excluded.wins",
                row,
            )
            connection.execute("DELETE FROM rankings WHERE number <= (SELECT max(number) FROM rankings) - ?", (_MOST,))

    def models(self) -> dict[str, str]:
        """Return all LLMs of the record by name, with the newest model of each name."""
        with self._store.connection() as connection:
            rows = connection.execute("SELECT llms FROM rankings GROUP BY llms ORDER BY max(number)").fetchall()
        return dict(llm for (llms,) in rows for llm in self._llms(llms))

    def learn(self, llms: Mapping[str, str]) -> Learned:
        """Learn the strengths of some LLMs, from the games between them.

        Args:
            llms: model of each LLM by its name, see `models_of`; games of another model of that name do not count.
        """
        with self._store.connection() as connection:
            rows = connection.execute("SELECT llms, kind, best, wins FROM rankings").fetchall()
        groups: dict[str, list[tuple[Kind, int, bytes]]] = {}
        for text, kind, best, wins in rows:
            groups.setdefault(text, []).append((kind, best, wins))
        order = {llm: i for i, llm in enumerate(llms.items())}
        n = len(order)
        total, games = np.zeros((n, n)), np.zeros(n, np.int64)
        counts = np.zeros((len(KINDS), 2, n), np.int64)  # prompts, first places
        rankings = 0
        for text, entries in groups.items():
            present = self._llms(text)
            at = [i for i, llm in enumerate(present) if llm in order]
            here = [order[present[i]] for i in at]
            wins = self._wins([entry[2] for entry in entries], len(present))[:, at][:, :, at]
            played = wins + wins.transpose(0, 2, 1) > 0
            total[np.ix_(here, here)] += wins.sum(axis=0)
            games[here] += played.sum(axis=(0, 2))
            rankings += int(played.any(axis=(1, 2)).sum())
            for number, kind in enumerate(KINDS):
                firsts = [entry[1] for entry in entries if entry[0] == kind]
                counts[number, 0, here] += len(firsts)
                counts[number, 1, here] += np.bincount(np.array(firsts, np.int64), minlength=len(present))[at]
        priors, intervals = _fit(list(llms), total, games, f"{rankings:,} recorded rankings")
        strengths = {} if priors is None else priors.strengths
        standings = {}
        for i, name in enumerate(llms):
            of_kinds: dict[Kind, tuple[int, int]] = {
                kind: (int(counts[k, 0, i]), int(counts[k, 1, i])) for k, kind in enumerate(KINDS)
            }
            prompts, firsts_of_all = counts[:, :, i].sum(axis=0).tolist()
            standings[name] = Standing(prompts, firsts_of_all, strengths.get(name), intervals.get(name), of_kinds)
        return Learned(rankings, priors, standings)

    def _llms(self, text: str) -> list[_LLM]:
        try:
            return [(str(name), str(model)) for name, model in json.loads(text)]
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._store.path}: the record is damaged ({error}); delete its rankings.") from error

    def _wins(self, outcomes: Sequence[bytes], n: int) -> Floats:
        """Return ``[rows, n, n]``, weighted number of wins of i over j."""
        try:
            return np.frombuffer(b"".join(outcomes), _WINS).reshape(len(outcomes), n, n).astype(np.float64)
        except ValueError as error:
            raise StoreError(f"{self._store.path}: the record is damaged ({error}); delete its rankings.") from error


def _fit(names: Sequence[str], wins: Floats, games: NDArray[np.int64], source: str) -> _Fitted:
    """Fit the strengths of the LLMs that have games, with their intervals."""
    played = np.flatnonzero(games).tolist()
    if not played:
        return None, {}
    fit = shrunk_strengths(wins[np.ix_(played, played)])
    means = (fit.mean.round(_DECIMALS) + 0.0).tolist()
    errors = (_SIGMAS * np.sqrt(np.diag(fit.covariance))).tolist()
    chosen = [names[i] for i in played]
    priors = Priors(
        dict(zip(chosen, means, strict=True)), dict(zip(chosen, games[played].tolist(), strict=True)), source=source
    )
    ends = [Interval(mean - error, mean + error) for mean, error in zip(means, errors, strict=True)]
    return priors, dict(zip(chosen, ends, strict=True))


def _digest(prompt: Instruction, models: Mapping[str, str]) -> bytes:
    """Return 16 bytes of the sha256 of a prompt and its LLMs."""
    text = json.dumps([to_messages(prompt), sorted(models.items())], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).digest()[:16]


def _kind(ranking: Ranking, texts: Sequence[str]) -> Kind:
    if ranking.evidence is not None and ranking.evidence.answers:
        return "answer"
    return "code" if 2 * sum("```" in text for text in texts) > len(texts) else "other"
