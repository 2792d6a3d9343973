"""What goes through the house: Example → Candidate → Comparison → Ranking → Answer.

All are frozen dataclasses; `to_dict` gives plain JSON values (what ``--json`` prints), without what is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, Self, TypedDict, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import Failure, InputError

__all__ = [
    "LLM",
    "Answer",
    "Candidate",
    "Comparison",
    "Example",
    "Failure",
    "Fuser",
    "Fusion",
    "FusionFlaw",
    "FusionReason",
    "FusionReport",
    "Instruction",
    "LabelledPair",
    "Message",
    "Mode",
    "OnProgress",
    "OnText",
    "Ranker",
    "Ranking",
    "Record",
    "Sampling",
    "Usage",
    "instruction_text",
    "to_messages",
]


class Record:
    """Plain-dict conversion shared by the dataclasses below."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; fields that are None are left out."""
        pairs = ((f.name, _plain(getattr(self, f.name))) for f in fields(self))  # type: ignore[arg-type]
        return {name: value for name, value in pairs if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; unknown keys are ignored, nested records are rebuilt by subclasses."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})


def _plain(value: Any) -> Any:
    if isinstance(value, Record | Failure):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    return value


@dataclass(frozen=True)
class Usage(Record):
    """Tokens of one or several calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


Mode = Literal["pick", "fuse"]
"""What an answer is: the best candidate as it is, or a fused text."""
FusionFlaw = Literal["empty", "repeats", "echo", "failed", "too_small"]
"""What makes a fused text no answer: nothing in it, a loop, the prompt again; or why there is none."""
FusionReason = Literal[
    "better",
    "unguarded",
    "worse",
    "copy",
    "clear",
    "one_candidate",
    "same_candidates",
    "no_candidates",
    "empty",
    "repeats",
    "echo",
    "failed",
    "too_small",
]
"""Why the fused text was given back (the first two), or the best candidate."""


@dataclass(frozen=True)
class Fusion(Record):
    """What a fuser made of the candidates of one instruction.

    Attributes:
        text: what it wrote, without white space around it.
        fuser: its name.
        used: 0-based indices of the candidates that it read, in the order in which it read them; one that did not fit
            beside the others is missing.
        truncated: share of the text of instruction and candidates that it could not read: of their tokens, or of
            their characters where an LLM behind an API does not say what its tokens are.
        flaw: what makes the text no answer; None where nothing does.
        error: for ``failed`` and ``too_small``, what happened, in one line.
        usage: tokens read and written.
        seconds: of the call; for rows that were written together, their mean.
        cost: dollars; None where the price is unknown.
        stored: it comes from the store, nobody was asked or paid.
    """

    text: str
    fuser: str
    used: tuple[int, ...] = ()
    truncated: float = 0.0
    flaw: FusionFlaw | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    cost: float | None = 0.0
    stored: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a fusion from what `to_dict` returned."""
        nested = {"used": tuple(values.get("used", ())), "usage": Usage.from_dict(values.get("usage", {}))}
        return super().from_dict({"cost": None, **values, **nested})


_REASONS: dict[FusionReason, str] = {
    "better": "the ranker prefers the fused answer to the best candidate",
    "unguarded": "the fused answer is given back unseen by the ranker, as the guard is off",
    "worse": "the ranker does not prefer the fused answer to the best candidate",
    "copy": "the fuser copied the best candidate",
    "clear": "the best candidate is clearly the best, and the others add little to it",
    "one_candidate": "there is only one candidate",
    "same_candidates": "all candidates say the same",
    "no_candidates": "all candidates are empty",
    "empty": "the fuser wrote nothing",
    "repeats": "the fuser repeated itself",
    "echo": "the fuser repeated its prompt",
    "failed": "the fuser failed",
    "too_small": "two candidates do not fit into what the fuser can read",
}


@dataclass(frozen=True)
class FusionReport(Record):
    """Whether a fused text or the best candidate is the answer, and why.

    Attributes:
        asked: the mode that was asked for, ``fuse`` or ``auto``.
        returned: ``fuse`` where the answer is the fused text, ``pick`` where it is the best candidate.
        reason: why.
        answer: the text that is given back.
        probability: by the ranker, from both orders, that the fused text is better than the best candidate; None
            where they were not compared.
        lead: the probability that the best candidate is better than the next one; None where unknown. With `overlap`,
            what ``auto`` decides by.
        overlap: how much of the other candidates' content the best one holds, 0 to 1; None where nothing could be
            fused.
        comparisons: ordered pairs that the guard compared.
        seconds: of fusing and guarding.
        fusion: what the fuser wrote, given back or not; None where it was not asked.
    """

    asked: Literal["fuse", "auto"]
    returned: Mode
    reason: FusionReason
    answer: str
    probability: float | None = None
    lead: float | None = None
    overlap: float | None = None
    comparisons: int = 0
    seconds: float = 0.0
    fusion: Fusion | None = None

    @property
    def message(self) -> str:
        """`reason` in words, with what belongs to it."""
        words = _REASONS[self.reason]
        if self.fusion is not None and self.fusion.error is not None:
            return f"{words}: {self.fusion.error}"
        return words if self.probability is None else f"{words} (probability {self.probability:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON of rows and answers; what the fuser wrote stands flat beside the rest, as `text`."""
        values = super().to_dict()
        fusion = values.pop("fusion", {})
        return {**values, **fusion, "seconds": self.seconds}


_T = TypeVar("_T")
OnText = Callable[[str], None]
"""Called with each new piece of text while an LLM writes."""
OnProgress = Callable[[int, int], None]
"""Called with (done, total) while long work goes on."""


class Message(TypedDict):
    """One turn of a conversation; `role` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


Instruction = str | Sequence[Message]
"""A prompt, or a conversation whose last turn is the user's."""

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


def to_messages(instruction: Instruction) -> list[Message]:
    """The instruction as chat messages, roles in their usual spelling.

    Raises:
        InputError: it is empty, a message lacks role or content, or a role is unknown.
    """
    if isinstance(instruction, str):
        if not instruction.strip():
            raise InputError("The instruction is empty: give the text that the LLMs should answer.")
        return [{"role": "user", "content": instruction}]
    messages: list[Message] = []
    for position, message in enumerate(instruction):
        if not (
            isinstance(message, Mapping)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        ):
            raise InputError(f"Message {position} of the instruction needs a text `role` and a text `content`.")
        role = _ROLES.get(message["role"].strip().lower())
        if role is None:
            raise InputError(
                f"Message {position} has the unknown role {message['role']!r}; known: {', '.join(_ROLES)}."
            )
        messages.append({"role": role, "content": message["content"]})
    if not any(message["content"].strip() for message in messages):
        raise InputError("The instruction is empty: give the text that the LLMs should answer.")
    return messages


def instruction_text(instruction: Instruction, input: str = "") -> str:
    """The instruction as the one text that a ranker reads.

    A single user message is its own text; a conversation becomes ``User: …`` and ``Assistant: …`` turns.
    `input` (MixInstruct's second field) follows after a newline.
    """
    if isinstance(instruction, str):
        text = instruction
    else:
        messages = to_messages(instruction)
        if len(messages) == 1:
            text = messages[0]["content"]
        else:
            text = "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)
    return f"{text}\n{input}" if text and input else text or input


@dataclass(frozen=True)
class Sampling(Record):
    """How an LLM should write.

    Attributes:
        temperature: None leaves it to the LLM's own default.
        top_p: None leaves it to the LLM's own default.
        max_tokens: most tokens to write.
        seed: passed on where the API knows it.
        sample: index of this answer among several of the same LLM to the same prompt.
        stop: texts that end the answer.
        extra: further keys of the request's body, such as ``tools``, for LLMs behind an API.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    sample: int = 0
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Candidate(Record):
    """One LLM's answer to an instruction.

    Attributes:
        text: the answer; what is ranked and fused.
        model: name of the LLM that wrote it.
        scores: judgements of it by name, higher is better.
        reasoning: a reasoning model's thoughts; neither ranked nor fused.
        usage: tokens of the call that wrote it.
        seconds: duration of that call.
        cost: dollars; None where the price is unknown.
        finish_reason: ``stop``, ``length``, … as the API said it.
        tool_calls: calls of functions as the API gives them, whose JSON `text` ends with; None where there are none.
    """

    text: str
    model: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reasoning: str | None = None
    usage: Usage | None = None
    seconds: float | None = None
    cost: float | None = None
    finish_reason: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        usage, calls = values.get("usage"), values.get("tool_calls")
        nested = {
            "usage": None if usage is None else Usage.from_dict(usage),
            "tool_calls": None if calls is None else tuple(calls),
        }
        return super().from_dict({**values, **nested})


@dataclass(frozen=True)
class LabelledPair(Record):
    """A judgement: which of two candidates (0-based indices) is better, and who says so."""

    a: int
    b: int
    label: Literal["a", "b", "tie"]
    by: str = ""


@dataclass(frozen=True)
class Example(Record):
    """One row of a file in MixInstruct's format.

    Attributes:
        instruction: prompt or conversation.
        input: MixInstruct's second field; often empty.
        reference: a known good answer (``output`` in MixInstruct).
        candidates: answers of LLMs.
        pairs: judgements of candidates.
        id: the row's own name.
        extra: every other key of the row, kept as it was.
    """

    instruction: Instruction
    input: str = ""
    reference: str | None = None
    candidates: tuple[Candidate, ...] = ()
    pairs: tuple[LabelledPair, ...] = ()
    id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """Instruction and input as one text."""
        return instruction_text(self.instruction, self.input)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True)
class Comparison(Record):
    """Candidate A against candidate B, both orders.

    Attributes:
        logit: (l(A,B) − l(B,A)) / 2; above zero, A is better.
        probability: that A is better, sigmoid(logit / temperature).
        forward: l(A,B), A read first.
        backward: l(B,A), B read first.
    """

    logit: float
    probability: float
    forward: float
    backward: float

    @classmethod
    def from_logits(cls, forward: float, backward: float, temperature: float = 1.0) -> Comparison:
        """From the two ordered logits of a ranker."""
        logit = (forward - backward) / 2
        return cls(logit, _sigmoid(logit / temperature), forward, backward)

    @property
    def winner(self) -> Literal["A", "B", "tie"]:
        """The better one."""
        return "tie" if self.logit == 0 else "A" if self.logit > 0 else "B"


@dataclass(frozen=True, eq=False)
class Ranking(Record):
    """An order over the N candidates of one instruction.

    Attributes:
        best: 0-based index of the winner.
        order: 0-based indices, best first.
        ranks: per candidate, 1 is best; ties share the smaller rank.
        scores: per candidate, higher is better.
        logits: ``[N, N]``; ``[i, j]`` is l(i, j), above zero where i, read first, is better than j; NaN where
            not compared.
        strategy: name of the strategy that chose the pairs, or of the pointwise ranker.
        comparisons: ordered pairs that went through the model.
        temperature: of `probability`.
        truncated: share of the tokens of instruction and candidates that the model could not read.
    """

    best: int
    order: tuple[int, ...]
    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    logits: NDArray[np.float64] = field(repr=False)
    strategy: str
    comparisons: int
    temperature: float = 1.0
    truncated: float = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        lists = {name: tuple(values[name]) for name in ("order", "ranks", "scores")}
        logits = np.array(values["logits"], np.float64)  # of None, NaN
        return super().from_dict({**values, **lists, "logits": logits})

    def __len__(self) -> int:
        return len(self.ranks)

    def logit(self, i: int, j: int) -> float:
        """Evidence that i is better than j: (l(i,j) − l(j,i)) / 2, one of them if only one is known, or NaN."""
        forward, backward = float(self.logits[i, j]), float(self.logits[j, i])
        if math.isnan(backward):
            return forward
        return -backward if math.isnan(forward) else (forward - backward) / 2

    def probability(self, i: int, j: int) -> float:
        """P(candidate i is better than candidate j); NaN where they were not compared."""
        logit = 0.0 if i == j else self.logit(i, j)
        return logit if math.isnan(logit) else _sigmoid(logit / self.temperature)

    @property
    def lead(self) -> float | None:
        """P(the best is better than the next one), or than the closest it was compared with; None with nobody."""
        known = [self.probability(self.best, other) for other in self.order if other != self.best]
        compared = [probability for probability in known if not math.isnan(probability)]
        if not compared:
            return None
        return min(compared) if math.isnan(known[0]) else known[0]

    def sorted(self, items: Sequence[_T]) -> list[_T]:
        """What belongs to the candidates (texts, models, scores, …), best candidate first.

        Args:
            items: one per candidate, in the order in which they were ranked.

        Raises:
            InputError: there are more or fewer of them than candidates.
        """
        if len(items) != len(self):
            raise InputError(f"A ranking of {len(self)} candidates sorts as many items, not {len(items)}.")
        return [items[i] for i in self.order]

    def summary(self) -> dict[str, Any]:
        """What a row or an answer says of its ranking: not the matrix, and of that the lead alone."""
        values = self.to_dict()
        return {
            **{key: values[key] for key in ("best", "ranks", "scores", "strategy", "comparisons")},
            "lead": self.lead,
        }


@dataclass(frozen=True)
class Answer(Record):
    """What an ensemble says to one prompt, and what it rests on.

    Attributes:
        text: the answer.
        mode: what it is: ``pick`` (the best candidate as it is) or ``fuse``.
        candidates: all of them, in the order of the LLMs.
        ranking: over `candidates`.
        failures: LLMs that gave no answer.
        usage: tokens of all calls.
        cost: dollars of all calls; None where a price is unknown.
        seconds: from the question to the answer.
        degraded: it rests on fewer candidates than were asked for, or the fuser failed.
        fusion: what the fuser did, and why its text was given back or not; None where nobody asked for it.
    """

    text: str
    mode: Mode
    candidates: tuple[Candidate, ...]
    ranking: Ranking
    failures: tuple[Failure, ...]
    usage: Usage
    cost: float | None
    seconds: float
    degraded: bool
    fusion: FusionReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``blend ask --json``: each candidate with its rank and score, the ranking in short."""
        candidates = [
            {**candidate.to_dict(), "rank": rank, "score": score}
            for candidate, rank, score in zip(self.candidates, self.ranking.ranks, self.ranking.scores, strict=True)
        ]
        return {
            **super().to_dict(),
            "candidates": candidates,
            "ranking": self.ranking.summary(),
            "cost": self.cost,
        }


@runtime_checkable
class LLM(Protocol):
    """Writes one candidate."""

    @property
    def name(self) -> str:
        """Its name in the ensemble."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its answers depend on besides messages and sampling, as plain JSON values; not its name."""
        ...

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = ..., *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation.

        Raises:
            LLMError: there is no answer; ``reason`` says why.
        """
        ...


@runtime_checkable
class Ranker(Protocol):
    """Ranks the candidates of many instructions."""

    def rank_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        strategy: str = "auto",
        seed: int = 0,
        budget: int = ...,
        progress: OnProgress | None = None,
    ) -> list[Ranking]:
        """One `Ranking` per instruction; lists of candidates may differ in length.

        A pointwise ranker takes `strategy`, `seed` and `budget`, and ignores them.
        """
        ...


@runtime_checkable
class Fuser(Protocol):
    """Writes one answer from several candidates."""

    @property
    def name(self) -> str:
        """What answers and rows say of who wrote the fused text."""
        ...

    def fuse_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        inputs: Sequence[str] | None = None,
        seed: int = 0,
        progress: OnProgress | None = None,
    ) -> list[Fusion]:
        """One `Fusion` per instruction.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each, best first; lists may differ in length.
            inputs: MixInstruct's second field, one for each; None has none.
            seed: of what is drawn.
            progress: called with the rows done and all of them.
        """
        ...

    async def afuse(
        self,
        instruction: Instruction,
        candidates: Sequence[str],
        *,
        input: str = "",
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Fusion:
        """`fuse_many` for one instruction; `on_text` gets what is written, where the fuser can. Cancelling ends it."""
        ...
