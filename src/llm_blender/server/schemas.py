"""Schemas of requests and responses, with OpenAI's names for what its API has, too."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class StrictRequest(BaseModel):
    """A request that refuses unknown keys, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _OpenRequest(BaseModel):
    """A request with OpenAI's keys: new keys of its API are passed on to the LLMs."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class BlendOptions(StrictRequest):
    """Options of this request in place of the configuration's.

    Attributes:
        mode: pick the best candidate, fuse the best ones, or decide.
        llms: names of the LLMs to ask.
        samples: number of answers of each LLM.
        strategy: pairs to compare.
        budget: maximum number of comparisons.
        quorum: number of answers that suffice.
        grace: seconds for the other LLMs after the quorum.
        deadline: seconds for the whole request; the configured deadline is the maximum.
        max_cost: maximum cost in dollars; the configured one is the maximum.
        top_k: maximum number of candidates to fuse.
        guard: return a fused text only if the ranker prefers it.
        candidates: False leaves the texts of the candidates out of the answer.
        watch: in a stream, send what the LLMs write while they write it.
        keep: keep the question and its answers in the history, for votes.
    """

    mode: Literal["pick", "fuse", "auto"] | None = None
    llms: Annotated[list[str], Field(min_length=1)] | None = None
    samples: Annotated[int, Field(ge=1, le=1000)] | None = None
    strategy: str | None = None
    budget: Count | None = None
    quorum: Count | None = None
    grace: Annotated[float, Field(ge=0)] | None = None
    deadline: Annotated[float, Field(gt=0)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    top_k: Annotated[int, Field(ge=2, le=1000)] | None = None
    guard: bool | None = None
    candidates: bool = True
    watch: bool = False
    keep: bool = False


class _TextPart(_OpenRequest):
    type: Literal["text"]
    text: str


class _Function(_OpenRequest):
    name: str
    arguments: str


class _ToolCall(_OpenRequest):
    id: str
    type: Literal["function"]
    function: _Function


class ChatMessage(_OpenRequest):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_TextPart] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs a text as `content`")
        return self

    @property
    def text(self) -> str:
        """The text of the content, whether it has parts or not."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(_OpenRequest):
    include_usage: bool = False


class _Tool(_OpenRequest):
    type: Literal["function"]
    function: dict[str, Any]


class _ResponseFormat(_OpenRequest):
    type: Literal["text", "json_object", "json_schema"]


class ChatRequest(_OpenRequest):
    """OpenAI's chat request; keys that are not named here are passed on to the LLMs."""

    model: Text
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    tools: Annotated[list[_Tool], Field(min_length=1)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[None] = None
    functions: Literal[None] = None
    function_call: Literal[None] = None
    blend: BlendOptions | None = None


class _Contest(StrictRequest):
    instruction: Text | Annotated[list[ChatMessage], Field(min_length=1)]
    seed: Seed = 0


class RankRequest(_Contest):
    """Candidates to put in order."""

    candidates: Annotated[list[str], Field(min_length=1)]
    strategy: str | None = None
    budget: Count | None = None


class CompareRequest(_Contest):
    """Two answers."""

    a: str
    b: str


class FuseRequest(_Contest):
    """Candidates to fuse into one answer."""

    candidates: Annotated[list[str], Field(min_length=1)]
    mode: Literal["fuse", "auto"] = "fuse"
    top_k: Annotated[int, Field(ge=2, le=1000)] | None = None
    guard: bool | None = None


class RerankRequest(_OpenRequest):
    """Cohere's and Jina's `documents`, or TEI's `texts`."""

    query: Text
    documents: Annotated[list[str | dict[str, Any]], Field(min_length=1)] | None = None
    texts: Annotated[list[str], Field(min_length=1)] | None = None
    model: str | None = None
    top_n: Count | None = None
    return_documents: bool = False
    return_text: bool = False
    raw_scores: bool = False


# Responses. These schemas document the API; the routes make the JSON.
class OpenAnswer(BaseModel):
    """A response that may have more keys than are documented."""

    model_config = ConfigDict(extra="allow")


class _Problem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Problem(OpenAnswer):
    """An error in OpenAI's format."""

    error: _Problem


class _Usage(OpenAnswer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Reply(OpenAnswer):
    role: Literal["assistant"]
    content: str | None
    tool_calls: list[_ToolCall] | None = None


class _Choice(OpenAnswer):
    index: int
    message: _Reply
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    logprobs: None = None


class _Standing(OpenAnswer):
    best: int
    ranks: list[int]
    scores: list[float]
    strategy: str
    comparisons: int
    probabilities: list[list[float | None]]


class _Report(OpenAnswer):
    mode: Literal["pick", "fuse"]
    degraded: bool
    seed: int
    candidates: list[dict[str, Any]]
    ranking: _Standing
    failures: list[dict[str, Any]]
    cost: float | None
    seconds: float
    kept: bool | None = None


class ChatCompletion(OpenAnswer):
    """The answer, with its details under `blend`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[_Choice]
    usage: _Usage
    blend: _Report


class Model(OpenAnswer):
    """A value of `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class _Asked(OpenAnswer):
    name: str
    samples: int


class EnsembleInfo(OpenAnswer):
    """The LLMs of the ensemble, and what it can do."""

    llms: list[_Asked]
    mode: Literal["pick", "fuse", "auto"]
    modes: list[Literal["pick", "fuse", "auto"]]
    strategy: str
    history: bool


class ModelList(OpenAnswer):
    """All values of `model`."""

    object: Literal["list"]
    data: list[Model]


class Ranked(_Standing):
    """An order of candidates."""

    order: list[int]


class Comparison(OpenAnswer):
    """The better one of two answers."""

    winner: Literal["A", "B", "tie"]
    probability: float
    logit: float


class Fused(OpenAnswer):
    """One answer fused from many."""

    text: str
    mode: Literal["pick", "fuse"]
    ranking: _Standing
    fusion: dict[str, Any]


class _Result(OpenAnswer):
    index: int
    relevance_score: float


class Reranked(OpenAnswer):
    """The answer to `documents`."""

    id: str
    model: str
    results: list[_Result]
    meta: dict[str, Any]


class ScoredText(OpenAnswer):
    """An item of the answer to `texts`."""

    index: int
    score: float
    text: str | None = None


class Health(OpenAnswer):
    """The state of the service."""

    status: Literal["ok", "ready", "not ready"]
