"""History of the playground and the command line: questions, answers, and votes on them, in the file of a `Store`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, Literal

from llm_blender.errors import InputError, NotFoundError, StoreError
from llm_blender.store import Store, search_text
from llm_blender.types import Candidate, Example, LabelledPair, Message, TextMessage, instruction_text, text_messages

__all__ = ["BLIND", "UNDO_SECONDS", "History", "KeptAnswer", "Vote"]

BLIND = "human-blind"
"""`LabelledPair.by` of a vote whose voter saw neither names nor ranks; that of other votes is ``human``."""
UNDO_SECONDS = 300
"""Seconds in which a removed answer can be restored."""
_END = 2**62  # above every number
_COLUMNS = "number, id, created_at, messages, text, report, settings"
_OWN = "ifnull(?, owner) = owner"
_VISIBLE = f"{_OWN} AND number NOT IN (SELECT answer FROM deleted)"


@dataclass(frozen=True)
class Vote:
    """A vote on two candidates.

    Attributes:
        a: index of the first one.
        b: index of the second one.
        label: the better one, or ``tie``.
        blind: whether the voter saw neither names nor ranks.
        bad: whether both are bad; the label is ``tie`` then.
    """

    a: int
    b: int
    label: Literal["a", "b", "tie"]
    blind: bool = False
    bad: bool = False


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
        settings: keys of the request beside the conversation; empty if the store does not know them.
    """

    id: str
    created_at: datetime
    messages: tuple[TextMessage, ...]
    text: str
    report: Mapping[str, Any]
    votes: tuple[Vote, ...] = ()
    number: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

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
        pairs = tuple(LabelledPair(v.a, v.b, v.label, by=BLIND if v.blind else "human") for v in self.votes)
        return Example(instruction, candidates=candidates, pairs=pairs, id=self.id)


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
        self,
        id: str,
        messages: Sequence[Message],
        text: str,
        report: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        owner: str = "",
    ) -> None:
        """Add an answer; it is visible to others when this returns."""
        turns, details = json.dumps(text_messages(messages)), json.dumps(dict(report))
        with self._changing() as connection:
            row = connection.execute(
                "INSERT INTO answers (id, owner, created_at, messages, text, report, settings) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id, owner, _now(), turns, text, details, json.dumps(dict(settings or {}))),
            )
            folded = search_text(turns, text, details)
            connection.execute("INSERT INTO search_texts VALUES (?, ?)", (row.lastrowid, folded))

    def get(self, id: str, *, owner: str | None = None) -> KeptAnswer:
        """Return one answer.

        Raises:
            NotFoundError: there is no such answer, or it has another owner.
        """
        with self._store.connection() as connection:
            return self._answer(connection, self._find(connection, id, owner))

    def earlier(self, answer: KeptAnswer, *, owner: str | None = None) -> list[KeptAnswer | None]:
        """Find the kept answers that the turns of a conversation come from, oldest first.

        Returns:
            For each turn of the assistant in `KeptAnswer.messages`, the newest answer to the turns before it that has
            its text or a candidate with it; None where none is kept.
        """
        found: list[KeptAnswer | None] = []
        with self._store.connection() as connection:
            for end, turn in enumerate(answer.messages):
                if turn["role"] != "assistant":
                    continue
                rows = connection.execute(
                    f"SELECT {_COLUMNS} FROM answers WHERE messages = ? AND number < ? AND {_VISIBLE} "
                    "ORDER BY number DESC",
                    (json.dumps(answer.messages[:end]), answer.number, owner),
                ).fetchall()
                text = turn["content"].strip()
                kept = (self._answer(connection, row) for row in rows)
                found.append(next((each for each in kept if text in _texts(each)), None))
        return found

    def latest(self, limit: int, *, before: str | None = None, owner: str | None = None) -> list[KeptAnswer]:
        """List the newest answers, newest first.

        Args:
            limit: maximum number of answers.
            before: id of an answer, which may be removed; only older ones are listed.
            owner: owner of the answers.

        Raises:
            NotFoundError: there is no answer `before`.
        """
        return self.search((), limit, before=before, owner=owner)

    def numbered(self, number: int, *, owner: str | None = None) -> KeptAnswer:
        """Return the answer of this `KeptAnswer.number`.

        Raises:
            NotFoundError: there is no such answer, or it has another owner.
        """
        with self._store.connection() as connection:
            found = connection.execute("SELECT id FROM answers WHERE number = ?", (number,)).fetchone()
            try:
                return self._answer(connection, self._find(connection, found[0] if found else "", owner))
            except NotFoundError:
                raise NotFoundError(f"The history holds no answer {number}; `blend logs` lists them.") from None

    def search(
        self,
        words: Sequence[str],
        limit: int,
        *,
        offset: int = 0,
        before: str | None = None,
        owner: str | None = None,
    ) -> list[KeptAnswer]:
        """List the newest answers whose conversation, answer or candidates contain all words, newest first.

        Args:
            words: compared without case; none lists all answers.
            limit: maximum number of answers.
            offset: number of answers found to leave out, from the newest on.
            before: id of an answer, which may be removed; only older ones are listed.
            owner: owner of the answers.

        Raises:
            NotFoundError: there is no answer `before`.
        """
        wanted = [word.casefold() for word in words]

        def contains(text: str | None) -> bool:  # twice as fast as SQLite's `instr`
            return all(word in (text or "") for word in wanted)

        with self._store.connection() as connection:
            connection.create_function("contains", 1, contains, deterministic=True)
            end = _END if before is None else self._find(connection, before, owner, visible=_OWN)[0]
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM answers WHERE number < ? AND {_VISIBLE} AND "
                "contains((SELECT folded FROM search_texts WHERE answer = number)) "
                "ORDER BY number DESC LIMIT ? OFFSET ?",
                (end, owner, limit, offset),
            ).fetchall()
            return [self._answer(connection, row) for row in rows]

    def voted(self, *, blind_only: bool = False, owner: str | None = None) -> Iterator[KeptAnswer]:
        """Yield the answers with votes, oldest first; later ones may be missing.

        Args:
            blind_only: leave out votes that are not blind.
            owner: owner of the answers.
        """
        with self._store.connection() as connection:
            ids = connection.execute(
                f"SELECT id FROM answers WHERE {_VISIBLE} AND number IN (SELECT answer FROM votes WHERE blind >= ?) "
                "ORDER BY number",
                (owner, blind_only),
            ).fetchall()
        for (id,) in ids:
            try:
                answer = self.get(id, owner=owner)
            except NotFoundError:  # deleted in the meantime
                continue
            votes = tuple(vote for vote in answer.votes if vote.blind or not blind_only)
            if votes:
                yield replace(answer, votes=votes)

    def vote(
        self,
        id: str,
        preferred: int | None = None,
        over: Sequence[int] | None = None,
        *,
        tie: bool = False,
        bad: bool = False,
        blind: bool = False,
        owner: str | None = None,
    ) -> KeptAnswer:
        """Vote that a candidate is better than others; replaces earlier votes on the same pairs.

        Args:
            id: id of the answer.
            preferred: 0-based index of the better candidate, see `KeptAnswer.candidates`; None, with `tie` or `bad`,
                means all pairs of candidates.
            over: indices of the worse candidates; None means all others.
            tie: whether they are equally good instead.
            bad: whether they are equally bad instead.
            blind: whether the voter saw neither names nor ranks.
            owner: owner of the answer.

        Raises:
            NotFoundError: there is no such answer.
            InputError: there is no candidate with an index, or there is nothing to compare.
        """
        with self._changing() as connection:
            row = self._find(connection, id, owner)
            answer = self._answer(connection, row)
            pairs = _pairs(len(answer.candidates), preferred, over, tie or bad)
            connection.executemany(
                "INSERT OR REPLACE INTO votes (answer, a, b, label, blind, bad, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(row[0], a, b, label, blind, bad, _now()) for a, b, label in pairs],
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

    def remove(self, id: str, *, owner: str | None = None) -> None:
        """Hide an answer, and the votes on it, from every method but `restore`.

        Whatever changes the history later than `UNDO_SECONDS` after that deletes it, as `forget` does.

        Raises:
            NotFoundError: there is no such answer.
        """
        with self._changing() as connection:
            number = self._find(connection, id, owner)[0]
            connection.execute("INSERT INTO deleted (answer, deleted_at) VALUES (?, ?)", (number, _now()))

    def restore(self, id: str, *, owner: str | None = None) -> KeptAnswer:
        """Show a removed answer again, with the votes on it.

        Raises:
            NotFoundError: there is no such answer, or it was removed more than `UNDO_SECONDS` ago.
        """
        with self._changing() as connection:
            row = self._find(connection, id, owner, visible=_OWN)
            connection.execute("DELETE FROM deleted WHERE answer = ?", row[:1])
            return self._answer(connection, row)

    def forget(self, id: str, *, owner: str | None = None) -> None:
        """Delete an answer, the votes on it, and the texts of its calls that no other answer has, at once.

        Raises:
            NotFoundError: there is no such answer.
        """
        with self._store.connection() as connection:
            with _transaction(connection):
                _delete(connection, self._find(connection, id, owner)[0])
            _empty_log(connection)

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Make the reads and writes of the ``with`` block one transaction."""
        with self._store.connection() as connection:
            _purge(connection)
            with _transaction(connection):
                yield connection

    def _find(
        self, connection: sqlite3.Connection, id: str, owner: str | None, *, visible: str = _VISIBLE
    ) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = connection.execute(
            f"SELECT {_COLUMNS} FROM answers WHERE id = ? AND {visible}", (id, owner)
        ).fetchone()
        if row is None:
            raise NotFoundError(f"The history holds no answer {id!r}; `GET /v1/history` lists them.")
        return row

    def _answer(self, connection: sqlite3.Connection, row: tuple[Any, ...]) -> KeptAnswer:
        number, id, created_at, messages, text, report, settings = row
        rows = connection.execute(
            "SELECT a, b, label, blind, bad FROM votes WHERE answer = ? ORDER BY a, b", (number,)
        ).fetchall()
        votes = tuple(Vote(a, b, label, bool(blind), bool(bad)) for a, b, label, blind, bad in rows)
        try:
            return KeptAnswer(
                id,
                datetime.fromisoformat(created_at),
                tuple(json.loads(messages)),
                text,
                json.loads(report),
                votes,
                number,
                json.loads(settings),
            )
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._store.path}: the kept answer {id} is damaged ({error}); delete it.") from error


def _now() -> str:
    return datetime.now(UTC).isoformat()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Let no other process write meanwhile; undo all if the ``with`` block raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _purge(connection: sqlite3.Connection) -> None:
    """Delete the answers that can no longer be restored."""
    end = (datetime.now(UTC) - timedelta(seconds=UNDO_SECONDS)).isoformat()
    with _transaction(connection):  # a number that another process frees is given to a new answer
        found = connection.execute("SELECT answer FROM deleted WHERE deleted_at < ?", (end,)).fetchall()
        for (number,) in found:
            _delete(connection, number)
    if found:
        _empty_log(connection)


def _delete(connection: sqlite3.Connection, number: int) -> None:
    """Delete an answer with the stored calls that only it rests on."""
    (report,) = connection.execute("SELECT report FROM answers WHERE number = ?", (number,)).fetchone()
    for marks in _marks(report):
        others = f"SELECT 1 FROM answers WHERE number != ? AND {_all_in('report', marks)}"
        if connection.execute(others, (number, *marks)).fetchone() is None:
            connection.execute(f"DELETE FROM calls WHERE {_all_in('candidate', marks)}", marks)
    connection.execute("DELETE FROM answers WHERE number = ?", (number,))


def _empty_log(connection: sqlite3.Connection) -> None:
    """Empty SQLite's log, which holds what is deleted."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _marks(report: str) -> Iterator[list[str]]:
    """Yield what the JSON of each call of an answer contains: its text, tokens and seconds.

    A text alone does not tell a call, as another prompt may have the same answer.
    """
    try:
        values = json.loads(report)
    except ValueError:  # damaged
        return
    fused = {**(values.get("fusion") or {}), "seconds": None}  # those of the guard, too
    for call in (*(values.get("candidates") or ()), fused):
        known = [f'"{key}": {json.dumps(call[key])}' for key in ("usage", "seconds") if call.get(key) is not None]
        if known and call.get("text"):
            yield [json.dumps(call["text"])[1:-1], *known]


def _all_in(column: str, marks: Sequence[str]) -> str:
    """Return the SQL condition that a column contains all marks, which are its parameters."""
    return " AND ".join([f"instr({column}, ?)"] * len(marks))


def _texts(answer: KeptAnswer) -> set[str]:
    return {answer.text.strip(), *(candidate.text.strip() for candidate in answer.candidates)}


def _pairs(
    count: int, preferred: int | None, over: Sequence[int] | None, tie: bool
) -> list[tuple[int, int, Literal["a", "b", "tie"]]]:
    """Return the pairs of indices that a vote is on, the lower index first, with their labels."""
    if preferred is None and (over is not None or not tie):
        raise InputError("A vote needs the index of the `preferred` candidate, or else a `tie` of all candidates.")
    others = [i for i in range(count) if i != preferred] if over is None else list(dict.fromkeys(over))
    if count < 2 or not others:
        raise InputError("There is nothing to compare it with: a vote needs two candidates.")
    if preferred is None:
        return [(a, b, "tie") for a, b in combinations(others, 2)]
    for index in (preferred, *others):
        if not 0 <= index < count:
            raise InputError(f"There is no candidate {index}: an index is from 0 to {count - 1}.")
    if preferred in others:
        raise InputError(f"Candidate {preferred} cannot be preferred to itself.")
    return [
        (min(preferred, other), max(preferred, other), "tie" if tie else "a" if preferred < other else "b")
        for other in others
    ]
