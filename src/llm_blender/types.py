"""Data types (Example → Candidate → Comparison → Ranking → Answer) and the protocols of LLM, ranker and fuser.

All data types are frozen dataclasses; `to_dict` returns plain JSON values (the output of ``--json``) without None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llm_blender.conversations import Instruction, Message, TextMessage, instruction_text, text_messages, to_messages
from llm_blender.errors import Failure, InputError

__all__ = [
    "LLM",
    "Answer",
    "Candidate",
    "Comparison",
    "Evidence",
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
    "TextMessage",
    "Usage",
    "instruction_text",
    "text_messages",
    "to_messages",
    "with_input",
]


def with_input(instruction: Instruction, input: str) -> Instruction:
    """Append MixInstruct's second field to an instruction; without one, a conversation stays a conversation."""
    return instruction_text(instruction, input) if input else instruction


class Record:
    """Plain-dict conversion shared by the dataclasses below."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; fields that are None are left out."""
        pairs = [(name, _plain(getattr(self, name))) for name in _names(type(self))]  # type: ignore[arg-type]
        return {name: value for name, value in pairs if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a record from the result of `to_dict`; unknown keys are ignored, subclasses rebuild nested ones."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})


@cache
def _names(kind: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int):  # most values; the checks below take long
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no NaN
    if isinstance(value, Record | Failure):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class Usage(Record):
    """Tokens of one or several calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


Mode = Literal["pick", "fuse"]
"""Kind of answer: the best candidate unchanged, or a fused text."""
FusionFlaw = Literal["empty", "repeats", "echo", "cut_off", "failed", "too_small"]
"""Reason why a fused text is unusable (empty, a loop, a copy of the prompt, cut off) or missing (``failed``,
``too_small``)."""
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
    "cut_off",
    "failed",
    "too_small",
]
"""Reason for returning the fused text (the first two) or the best candidate (the others)."""


@dataclass(frozen=True)
class Fusion(Record):
    """The output of a fuser for one instruction.

    Attributes:
        text: fused text, stripped.
        fuser: name of the fuser.
        used: 0-based indices of the candidates in the prompt, in prompt order; candidates that did not fit are missing.
        truncated: share of the instruction and candidates that was cut: in tokens, or in characters for an LLM behind
            an API, whose tokens are unknown.
        flaw: reason why the text is unusable; None if it is usable.
        error: one-line cause, for ``failed`` and ``too_small``.
        usage: tokens read and written.
        seconds: duration of the call; the mean for rows that were fused in one batch.
        cost: dollars; None if the price is unknown.
        stored: whether the text comes from the store, without a new call.
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
        """Rebuild a fusion from the result of `to_dict`."""
        nested = {"used": tuple(values.get("used", ())), "usage": Usage.from_dict(values.get("usage", {}))}
        return super().from_dict({"cost": None, **values, **nested})


_REASONS: dict[FusionReason, str] = {
    "better": "the ranker prefers the fused answer to the best candidate",
    "unguarded": "the guard is off: the fused answer is returned without a comparison",
    "worse": "the ranker does not prefer the fused answer to the best candidate",
    "copy": "the fuser copied the best candidate",
    "clear": "the best candidate is clearly the best, and the others add little to it",
    "one_candidate": "there is only one candidate",
    "same_candidates": "all candidates say the same",
    "no_candidates": "all candidates are empty",
    "empty": "the fuser wrote nothing",
    "repeats": "the fuser repeated itself",
    "echo": "the fuser repeated its prompt",
    "cut_off": "the fuser was cut off at its maximum of tokens",
    "failed": "the fuser failed",
    "too_small": "two candidates do not fit into the fuser's context",
}


@dataclass(frozen=True)
class FusionReport(Record):
    """The choice between a fused text and the best candidate, with its reason.

    Attributes:
        asked: the requested mode, ``fuse`` or ``auto``.
        returned: ``fuse`` if the answer is the fused text, ``pick`` if it is the best candidate.
        reason: reason for `returned`.
        answer: the returned text.
        probability: the ranker's probability, from both orders, that the fused text is better than the best candidate;
            None if they were not compared.
        lead: probability that the best candidate is better than the next one; None if unknown. ``auto`` decides by
            `lead` and `overlap`.
        overlap: share of the other candidates' content that the best one contains, 0 to 1; None if there was nothing
            to fuse.
        comparisons: pairs that the guard's ranker computed, see `Ranking`.
        seconds: duration of fusing and guarding.
        fusion: the fuser's output, whether returned or not; None if the fuser was not called.
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
        """`reason` as a sentence, with the error or the probability."""
        words = _REASONS[self.reason]
        if self.fusion is not None and self.fusion.error is not None:
            return f"{words}: {self.fusion.error}"
        return words if self.probability is None else f"{words} (probability {self.probability:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of rows and answers, with the fields of `fusion` at the top level."""
        values = super().to_dict()
        fusion = values.pop("fusion", {})
        return {**values, **fusion, "seconds": self.seconds}


_T = TypeVar("_T")
OnText = Callable[[str], None]
"""Called with each new piece of text while an LLM writes."""
OnProgress = Callable[[int, int], None]
"""Called with (done, total) during long work."""


@dataclass(frozen=True)
class Sampling(Record):
    """Sampling parameters of a call.

    Attributes:
        temperature: None for the LLM's own default.
        top_p: None for the LLM's own default.
        max_tokens: maximum number of tokens to write.
        seed: passed on to APIs that support it.
        sample: index of this answer among several samples of the same LLM for the same prompt.
        stop: strings that end the answer.
        extra: further keys of the request body, such as ``tools``, for LLMs behind an API.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    sample: int = 0
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None


_CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})


@dataclass(frozen=True)
class Candidate(Record):
    """One LLM's answer to an instruction.

    Attributes:
        text: the answer; the text that is ranked and fused.
        model: name of the LLM that wrote it.
        scores: quality scores by metric name, higher is better.
        reasoning: thoughts of a reasoning model; neither ranked nor fused.
        usage: tokens of the call.
        seconds: duration of the call.
        cost: dollars; None if the price is unknown.
        finish_reason: ``stop``, ``length``, … as returned by the API.
        tool_calls: function calls as returned by the API, with all their keys; `text` ends with their JSON. None if
            there are none.
        refusal: words with which the LLM refuses to answer, where the API marks them; `text` has them, too.
        extra: further keys of the message as returned by the API, which it may need back on the next turn.
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
    refusal: str | None = None
    extra: Mapping[str, Any] | None = None

    @property
    def cut_off(self) -> bool:
        """Whether the LLM stopped in the middle, at its maximum number of tokens."""
        return (self.finish_reason or "").casefold() in _CUT_OFF

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a candidate from the result of `to_dict`."""
        usage, calls = values.get("usage"), values.get("tool_calls")
        nested = {
            "usage": None if usage is None else Usage.from_dict(usage),
            "tool_calls": None if calls is None else tuple(calls),
        }
        return super().from_dict({**values, **nested})


@dataclass(frozen=True)
class LabelledPair(Record):
    """A preference label: which of two candidates (0-based indices) is better, and who labelled the pair."""

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
        pairs: preference labels of candidates.
        id: identifier of the row.
        extra: every other key of the row, unchanged.
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
    """Candidate A against candidate B, from both orders.

    Attributes:
        logit: (l(A,B) − l(B,A)) / 2; above zero, A is better.
        probability: P(A is better), sigmoid(logit / temperature).
        forward: l(A,B), A read first.
        backward: l(B,A), B read first.
    """

    logit: float
    probability: float
    forward: float
    backward: float

    @classmethod
    def from_logits(cls, forward: float, backward: float, temperature: float = 1.0) -> Comparison:
        """Make a comparison from the two ordered logits of a ranker."""
        logit = (forward - backward) / 2
        return cls(logit, _sigmoid(logit / temperature), forward, backward)

    @classmethod
    def from_ranking(cls, ranking: Ranking) -> Comparison:
        """Take the comparison of the first two candidates from a ranking that compared them in both orders."""
        return cls.from_logits(float(ranking.logits[0, 1]), float(ranking.logits[1, 0]), ranking.temperature)

    @property
    def winner(self) -> Literal["A", "B", "tie"]:
        """The better candidate, or ``tie``."""
        return "tie" if self.logit == 0 else "A" if self.logit > 0 else "B"


@dataclass(frozen=True)
class Verdict(Record):
    """Verdict of a judge on two candidates that it read in both orders.

    Attributes:
        a: 0-based index of a candidate.
        b: 0-based index of the other one.
        value: from 1, a is better in both orders, to −1, b is; 0 for a tie, or for orders that contradict each other.
    """

    a: int
    b: int
    value: float


@dataclass(frozen=True)
class Judging(Record):
    """The work of a judge on the close calls of one ranking (`llm_blender.ranking.close_calls`).

    Attributes:
        judge: name of the LLM or the ranker.
        member: whether the judge is an LLM that wrote one of the candidates; LLMs prefer their own answers.
        verdicts: in the order of the comparisons.
        failure: why a verdict is missing; the ranking is the one without it. None if none is.
    """

    judge: str
    member: bool = False
    verdicts: tuple[Verdict, ...] = ()
    failure: Failure | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild the work of a judge from the result of `to_dict`."""
        failure = values.get("failure")
        nested = {
            "verdicts": tuple(map(Verdict.from_dict, values.get("verdicts", ()))),
            "failure": None if failure is None else Failure.from_dict(failure),
        }
        return super().from_dict({**values, **nested})


@dataclass(frozen=True)
class Evidence(Record):
    """Evidence on the N candidates of a prompt beside the ranker's comparisons (`llm_blender.ranking.evidence`).

    Attributes:
        situation: ``two`` candidates, ``several``, or several that are ``agreeing`` on final answers.
        model: weight of the ranker's logits.
        parts: by name (``consensus``, ``agreement``, ``form``, ``length``, ``priors``, ``judge``), for each candidate
            the part of its evidence in logits of the ranking, with mean 0. A part without differences is missing.
        answers: final answer of each candidate, None for one without; empty where candidates have none to agree on.
        flaws: names of each candidate's flaws of form; empty if no candidate has one.
        agreement: weight of the share of the others with the same final answer.
        judging: verdicts of a judge; None if it compared nothing.
    """

    situation: str = "two"
    model: float = 1.0
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    answers: tuple[str | None, ...] = ()
    flaws: tuple[tuple[str, ...], ...] = ()
    agreement: float = 0.0
    judging: Judging | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; what is empty is left out."""
        return {name: value for name, value in super().to_dict().items() if value or name == "model"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild evidence from the result of `to_dict`."""
        nested = {
            "parts": {name: tuple(part) for name, part in dict(values.get("parts", {})).items()},
            "answers": tuple(values.get("answers", ())),
            "flaws": tuple(tuple(of_one) for of_one in values.get("flaws", ())),
            "judging": None if values.get("judging") is None else Judging.from_dict(values["judging"]),
        }
        return super().from_dict({**values, **nested})


@dataclass(frozen=True, eq=False)
class Ranking(Record):
    """An order over the N candidates of one instruction.

    Attributes:
        best: 0-based index of the best candidate.
        order: 0-based indices, best first.
        ranks: per candidate, 1 is best; ties share the smaller rank.
        scores: per candidate, higher is better.
        logits: ``[N, N]``; ``[i, j]`` is l(i, j), above zero if i, read first, is better than j; NaN if not compared.
        strategy: name of the strategy, or of the pointwise ranker.
        comparisons: pairs that the model computed: ordered ones, or unordered ones if it has no position bias.
        temperature: temperature of `probability`.
        truncated: share of the tokens of instruction and candidates that was cut.
        evidence: what counted beside the ranker's comparisons; it is in `logits` already. None if nothing did.
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
    evidence: Evidence | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a ranking from the result of `to_dict`."""
        lists: dict[str, Any] = {name: tuple(values[name]) for name in ("order", "ranks", "scores")}
        lists["logits"] = np.array(values["logits"], np.float64)  # of None, NaN
        if values.get("evidence") is not None:
            lists["evidence"] = Evidence.from_dict(values["evidence"])
        return super().from_dict({**values, **lists})

    def __len__(self) -> int:
        return len(self.ranks)

    def logit(self, i: int, j: int) -> float:
        """Return (l(i,j) − l(j,i)) / 2, above zero if i is better than j; only one of them if the other is NaN."""
        forward, backward = float(self.logits[i, j]), float(self.logits[j, i])
        if math.isnan(backward):
            return forward
        return -backward if math.isnan(forward) else (forward - backward) / 2

    def probability(self, i: int, j: int) -> float:
        """Return P(candidate i is better than candidate j), given all candidates; NaN if they were not compared.

        It is the probability that a judge who sees these two prefers i, calibrated on judged pairs. The other
        candidates are evidence: the same two among others have another probability. It is not the probability that i
        is right, or the best of all.
        """
        logit = 0.0 if i == j else self.logit(i, j)
        return logit if math.isnan(logit) else _sigmoid(logit / self.temperature)

    @property
    def lead(self) -> float | None:
        """P(the best is better than the next one, or than its closest opponent); None without a comparison."""
        return self.lead_over(self.order)

    def lead_over(self, others: Sequence[int]) -> float | None:
        """Return `lead` among some of the candidates.

        Args:
            others: candidates in the order of their ranks; the best one is left out.
        """
        known = [self.probability(self.best, other) for other in others if other != self.best]
        compared = [probability for probability in known if not math.isnan(probability)]
        if not compared:
            return None
        return min(compared) if math.isnan(known[0]) else known[0]

    def sorted(self, items: Sequence[_T]) -> list[_T]:
        """Sort items of the candidates (texts, models, scores, …), best candidate first.

        Args:
            items: one per candidate, in the order of the ranked list.

        Raises:
            InputError: the number of items is not the number of candidates.
        """
        if len(items) != len(self):
            raise InputError(f"A ranking of {len(self)} candidates sorts as many items, not {len(items)}.")
        return [items[i] for i in self.order]

    def summary(self) -> dict[str, Any]:
        """Return the short form for rows and answers: the lead instead of the matrix of logits.

        `truncated` is left out where nothing was cut, and `evidence` where nothing counted beside the comparisons.
        """
        keys = ["best", "ranks", "scores", "strategy", "comparisons"]
        keys += [key for key in ("truncated", "evidence") if getattr(self, key)]
        return {**{key: _plain(getattr(self, key)) for key in keys}, "lead": self.lead}


@dataclass(frozen=True)
class Answer(Record):
    """The answer of an ensemble to one prompt, with the candidates and the ranking behind it.

    Attributes:
        text: the answer.
        mode: ``pick`` (the best candidate unchanged) or ``fuse``.
        candidates: all candidates, in the order of the LLMs.
        ranking: ranking of `candidates`.
        failures: LLMs that gave no answer.
        usage: tokens of all calls.
        cost: dollars of all calls; None if a price is unknown.
        seconds: time from the prompt to the answer.
        degraded: whether fewer candidates than requested were ranked, or the fuser failed.
        fusion: report of the fuser; None if fusion was not requested.
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
        """Return the JSON of ``blend ask --json``: each candidate with its rank and score, a short ranking."""
        candidates = [
            {**candidate.to_dict(), "rank": rank, "score": score}
            for candidate, rank, score in zip(self.candidates, self.ranking.ranks, self.ranking.scores, strict=True)
        ]
        made = {"candidates": candidates, "ranking": self.ranking.summary(), "cost": self.cost}
        values = {f.name: made[f.name] if f.name in made else _plain(getattr(self, f.name)) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None or name == "cost"}


@runtime_checkable
class LLM(Protocol):
    """A language model that writes one candidate a call."""

    @property
    def name(self) -> str:
        """Name of the LLM in the ensemble."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything but messages and sampling that its answers depend on, as plain JSON values; without its name."""
        ...

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = ..., *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation.

        Raises:
            LLMError: there is no answer; see ``reason``.
        """
        ...


@runtime_checkable
class Ranker(Protocol):
    """A ranker of the candidates of many instructions."""

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
        """Return one `Ranking` per instruction; lists of candidates may differ in length.

        With the strategy ``duel`` the first two candidates of each list are compared, and the others are evidence only.
        A pointwise ranker accepts and ignores `strategy`, `seed` and `budget`.
        """
        ...


@runtime_checkable
class Fuser(Protocol):
    """A writer of one answer from several candidates."""

    @property
    def name(self) -> str:
        """Name of the fuser in answers and rows."""
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
        """Return one `Fusion` per instruction.

        Args:
            instructions: prompts or conversations.
            candidates: texts for each instruction, best first; lists may differ in length.
            inputs: MixInstruct's second field, one per instruction; None for none.
            seed: seed of the sampling.
            progress: called with (rows done, all rows).
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
        """Fuse one instruction like `fuse_many`; `on_text` gets the text while it is written, if the fuser streams.

        Cancelling the task ends the call.
        """
        ...
