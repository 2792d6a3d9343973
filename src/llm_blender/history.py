"""History of the playground and the command line: questions, answers, and votes on them, in the file of a `Store`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llm_blender.errors import InputError, NotFoundError, StoreError
from llm_blender.store import Store
from llm_blender.types import Candidate, Example, LabelledPair, Message, TextMessage, instruction_text, text_messages

__all__ = ["History", "KeptAnswer"]

_PAGE = 100  # answers that a search reads at once
_COLUMNS = "number, id, created_at, messages, text, report"


@dataclass(frozen=True)
class KeptAnswer:
    """A question, its answer, and the votes on it.

    Attributes:
        id: id of the completion.
        created_at: time of the answer, UTC.
        messages: the conversation, as turns of text.
        text: the answer.
        report: details of the answer, the service's value of the key ``blend``.
        votes: the votes, as pairs of indices into `candidates`.
        number: place among all answers of the store, from 1 on.
    """

    id: str
    created_at: datetime
    messages: tuple[TextMessage, ...]
    text: str
    report: Mapping[str, Any]
    votes: tuple[LabelledPair, ...] = ()
    number: int = 0

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The texts to vote on: the candidates and, as the last, the fused text, unless it copies one of them."""
        candidates = [Candidate.from_dict(values) for values in self.report["candidates"]]
        fusion = self.report.get("fusion") or {}
        fused = fusion.get("text")
        if fused and fused not in {candidate.text.strip() for candidate in candidates}:
            candidates.append(Candidate(fused, model=fusion.get("fuser")))
        return tuple(candidates)

    @property
    def example(self) -> Example:
        """A row to train rankers from, whose labelled pairs are the votes."""
        alone = len(self.messages) == 1 and self.messages[0]["role"] == "user"
        instruction = instruction_text(self.messages) if alone else self.messages
        candidates = tuple(Candidate(candidate.text, candidate.model) for candidate in self.candidates)
        return Example(instruction, candidates=candidates, pairs=self.votes, id=self.id)


class History:
    """The answers that a store keeps, and the votes on them.

    Every method takes the `owner` of the answers: a name that separates the clients of a service, or None for the
    answers of all clients.

    Args:
        store: the store, in whose file the history is.

    Raises:
        StoreError: by every method: the file cannot be opened, read or written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def keep(
        self, id: str, messages: Sequence[Message], text: str, report: Mapping[str, Any], *, owner: str = ""
    ) -> None:
        """Add an answer; it is visible to others when this returns."""
        row = (id, owner, _now(), json.dumps(text_messages(messages)), text, json.dumps(dict(report)))
        with self._store.connection() as connection:
            connection.execute(
                "INSERT INTO answers (id, owner, created_at, messages, text, report) VALUES (?, ?, ?, ?, ?, ?)", row
            )

    def get(self, id: str, *, owner: str | None = None) -> KeptAnswer:
        """Return one answer.

        Raises:
            NotFoundError: there is no such answer, or it has another owner.
        """
        with self._store.connection() as connection:
            return self._answer(connection, self._find(connection, id, owner))

    def latest(self, limit: int, *, before: str | None = None, owner: str | None = None) -> list[KeptAnswer]:
        """List the newest answers, newest first.

        Args:
            limit: maximum number of answers.
            before: id of an answer; only older ones are listed.
            owner: owner of the answers.

        Raises:
            NotFoundError: there is no answer `before`.
        """
        with self._store.connection() as connection:
            end = 2**62 if before is None else self._find(connection, before, owner)[0]
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM answers WHERE number < ? AND ifnull(?, owner) = owner "
                "ORDER BY number DESC LIMIT ?",
                (end, owner, limit),
            ).fetchall()
            return [self._answer(connection, row) for row in rows]

    def numbered(self, number: int, *, owner: str | None = None) -> KeptAnswer:
        """Return the answer of this `KeptAnswer.number`.

        Raises:
            NotFoundError: there is no such answer, or it has another owner.
        """
        with self._store.connection() as connection:
            found = connection.execute("SELECT id FROM answers WHERE number = ?", (number,)).fetchone()
            return self._answer(connection, self._find(connection, found[0] if found else str(number), owner))

    def search(self, words: Sequence[str], limit: int, *, owner: str | None = None) -> list[KeptAnswer]:
        """List the newest answers whose conversation or text contains all words, newest first.

        Args:
            words: compared without case; none lists all answers.
            limit: maximum number of answers.
            owner: owner of the answers.
        """
        wanted, found, before = [word.casefold() for word in words], list[KeptAnswer](), None
        while len(found) < limit and (page := self.latest(_PAGE, before=before, owner=owner)):
            for answer in page:
                text = "\n".join([*(turn["content"] for turn in answer.messages), answer.text]).casefold()
                if all(word in text for word in wanted):
                    found.append(answer)
            before = page[-1].id
        return found[:limit]

    def voted(self, *, owner: str | None = None) -> Iterator[KeptAnswer]:
        """Yield the answers with votes, oldest first; later ones may be missing."""
        with self._store.connection() as connection:
            ids = connection.execute(
                "SELECT id FROM answers WHERE ifnull(?, owner) = owner AND number IN (SELECT answer FROM votes) "
                "ORDER BY number",
                (owner,),
            ).fetchall()
        for (id,) in ids:
            try:
                yield self.get(id, owner=owner)
            except NotFoundError:  # deleted in the meantime
                continue

    def vote(
        self, id: str, preferred: int, over: Sequence[int] | None = None, *, tie: bool = False, owner: str | None = None
    ) -> KeptAnswer:
        """Vote that a candidate is better than others; replaces earlier votes on the same pairs.

        Args:
            id: id of the answer.
            preferred: 0-based index of the better candidate; see `KeptAnswer.candidates`.
            over: indices of the worse candidates; None means all others.
            tie: whether they are equally good instead.
            owner: owner of the answer.

        Raises:
            NotFoundError: there is no such answer.
            InputError: there is no candidate with an index, or there is nothing to compare.
        """
        with self._changing() as connection:
            row = self._find(connection, id, owner)
            answer = self._answer(connection, row)
            others = _others(len(answer.candidates), preferred, over)
            pairs = [_pair(preferred, other, tie) for other in others]
            connection.executemany(
                "INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?, ?)",
                [(row[0], pair.a, pair.b, pair.label, _now()) for pair in pairs],
            )
            return self._answer(connection, row)

    def take_back(self, id: str, *, owner: str | None = None) -> KeptAnswer:
        """Delete the votes on an answer.

        Raises:
            NotFoundError: there is no such answer.
        """
        with self._changing() as connection:
            row = self._find(connection, id, owner)
            connection.execute("DELETE FROM votes WHERE answer = ?", row[:1])
            return self._answer(connection, row)

    def forget(self, id: str, *, owner: str | None = None) -> None:
        """Delete an answer, and the votes on it.

        Raises:
            NotFoundError: there is no such answer.
        """
        with self._store.connection() as connection:
            connection.execute("DELETE FROM answers WHERE number = ?", self._find(connection, id, owner)[:1])

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Make the reads and writes of the ``with`` block one transaction."""
        with self._store.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _find(self, connection: sqlite3.Connection, id: str, owner: str | None) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = connection.execute(
            f"SELECT {_COLUMNS} FROM answers WHERE id = ? AND ifnull(?, owner) = owner", (id, owner)
        ).fetchone()
        if row is None:
            raise NotFoundError(f"The history holds no answer {id!r}; `GET /v1/history` or `blend logs` lists them.")
        return row

    def _answer(self, connection: sqlite3.Connection, row: tuple[Any, ...]) -> KeptAnswer:
        number, id, created_at, messages, text, report = row
        votes = connection.execute("SELECT a, b, label FROM votes WHERE answer = ? ORDER BY a, b", (number,))
        pairs = tuple(LabelledPair(a, b, label, by="human") for a, b, label in votes)
        try:
            turns = tuple(json.loads(messages))
            return KeptAnswer(id, datetime.fromisoformat(created_at), turns, text, json.loads(report), pairs, number)
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._store.path}: the kept answer {id} is damaged ({error}); delete it.") from error


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _others(count: int, preferred: int, over: Sequence[int] | None) -> list[int]:
    others = [i for i in range(count) if i != preferred] if over is None else list(dict.fromkeys(over))
    for index in (preferred, *others):
        if not 0 <= index < count:
            raise InputError(f"There is no candidate {index}: an index is from 0 to {count - 1}.")
    if not others:
        raise InputError("There is nothing to compare it with: a vote needs two candidates.")
    if preferred in others:
        raise InputError(f"Candidate {preferred} cannot be preferred to itself.")
    return others


def _pair(preferred: int, other: int, tie: bool) -> LabelledPair:
    first = preferred < other
    label = "tie" if tie else "a" if first else "b"
    return LabelledPair(min(preferred, other), max(preferred, other), label)  # type: ignore[arg-type]
