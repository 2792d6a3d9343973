"""Schemas of requests and responses, with OpenAI's names for what its API has, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from llm_blender.data import parse_candidate
from llm_blender.ensemble import Form
from llm_blender.errors import InputError, MessageError, MissingExtraError
from llm_blender.types import Instruction, Message, to_messages

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class StrictRequest(BaseModel):
    """A request that refuses unknown keys, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _OpenRequest(BaseModel):
    """A request with OpenAI's keys, and others; its clients send null for a key that is not set."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        if isinstance(values, dict) and None in values.values():
            return {key: value for key, value in values.items() if value is not None}
        return values


class BlendOptions(StrictRequest):
    """Options of this request in place of the configuration's.

    Attributes:
        mode: pick the best candidate, fuse the best ones, or decide.
        llms: names of the LLMs to ask.
        samples: number of answers of each LLM.
        strategy: pairs to compare.
        budget: maximum number of comparisons.
        quorum: number of LLMs whose answers suffice.
        grace: seconds for the other LLMs after the quorum; None is as configured.
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


def _problem(place: str, words: str, value: Any) -> ValidationError:
    """Make the error of a value, whose place is keys and indices with dots between them."""
    where = tuple(int(part) if part.isdigit() else part for part in place.split(".") if part)
    kind = PydanticCustomError("problem", "{words}", {"words": words})
    return ValidationError.from_exception_data("request", [InitErrorDetails(type=kind, loc=where, input=value)])


def _read_messages(value: Any) -> list[Message]:
    """Read a conversation; an error names the message and its key."""
    try:
        return to_messages(value)
    except MessageError as error:
        raise _problem(f"{error.position}.{error.key}", error.reason, value) from None


def _read_instruction(value: Any) -> Instruction:
    if not isinstance(value, str | list):
        raise ValueError("a text or a list of messages is wanted")
    messages = _read_messages(value)
    return value if isinstance(value, str) else messages


# The reader decides, so that an error names what is wrong; these schemas document it.
_TEXT_OR_NULL, _LIST_OR_NULL = {"type": ["string", "null"]}, {"type": ["array", "null"]}
_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {
                "type": "string",
                "description": "system (or developer), user, assistant, tool (or function).",
            },
            "content": {
                "type": ["string", "array", "null"],
                "description": "A text, or parts of text; null for an assistant that calls tools or refuses.",
            },
            "name": _TEXT_OR_NULL,
            "refusal": _TEXT_OR_NULL,
            "tool_call_id": _TEXT_OR_NULL,
            "tool_calls": _LIST_OR_NULL,
        },
    },
}
_CANDIDATE = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["text"],
            "properties": {"text": {"type": "string"}},
            "description": "As in files, with `model` and more beside the text.",
        },
    ]
}
ChatMessages = Annotated[
    list[Any], Field(min_length=1), AfterValidator(_read_messages), WithJsonSchema(_MESSAGES, mode="validation")
]
"""A conversation, as `to_messages` reads it."""
_Instruction = Annotated[
    Any,
    AfterValidator(_read_instruction),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, _MESSAGES]}, mode="validation"),
]
_Candidate = Annotated[Any, AfterValidator(parse_candidate), WithJsonSchema(_CANDIDATE, mode="validation")]


def _read_document(value: Any) -> str:
    return parse_candidate(value, name="the document").text


_Document = Annotated[Any, AfterValidator(_read_document), WithJsonSchema(_CANDIDATE, mode="validation")]


class _Function(_OpenRequest):
    name: str
    arguments: str


class _ToolCall(_OpenRequest):
    id: str
    type: Literal["function", "custom"]
    function: _Function | None = None


class _StreamOptions(_OpenRequest):
    include_usage: bool | None = None


def _token_limit(given: int) -> int | None:
    if given == 0 or given < -1:
        raise ValueError("must be at least 1; null and -1 mean no limit")
    return None if given == -1 else given


def _stop_strings(given: Any) -> tuple[str, ...]:
    strings = [given] if isinstance(given, str) else given
    if strings is not None and not (
        isinstance(strings, list | tuple) and all(isinstance(each, str) for each in strings)
    ):
        raise ValueError("must be a text, or a list of texts")
    if len(strings := strings or []) > _MOST_STOPS:
        raise ValueError(f"must be at most {_MOST_STOPS} texts")
    return tuple(filter(None, strings))


def _unsupported(words: str) -> Callable[[Any], Any]:
    def refuse(given: Any) -> Any:
        if given:
            raise ValueError(words)
        return given

    return refuse


_MOST_STOPS = 16
_TokenLimit = Annotated[int, Field(le=1_000_000, json_schema_extra={"minimum": -1}), AfterValidator(_token_limit)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_NoLogprobs = AfterValidator(_unsupported("logprobs are not supported"))
_STOP_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "maxItems": _MOST_STOPS},
        {"type": "null"},
    ]
}
_Stop = Annotated[Any, AfterValidator(_stop_strings), WithJsonSchema(_STOP_SCHEMA, mode="validation")]
# `Form.of` reads the next three, so that an error names what is wrong; these schemas document them.
_Tool = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "properties": {"type": {"enum": ["function", "custom"]}}}, mode="validation"),
]
_FORMAT_SCHEMA = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
}
_ResponseFormat = Annotated[dict[str, Any], WithJsonSchema(_FORMAT_SCHEMA, mode="validation")]
_CHOICE_SCHEMA = {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}, {"type": "null"}]}


class ChatRequest(_OpenRequest):
    """OpenAI's chat request; of the keys that are not named here, few are handed on to the LLMs."""

    model: Text
    messages: ChatMessages
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: _Stop = None
    max_tokens: _TokenLimit | None = None
    max_completion_tokens: _TokenLimit | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    seed: Seed | None = None
    tools: list[_Tool] | None = None
    tool_choice: Annotated[Any, WithJsonSchema(_CHOICE_SCHEMA, mode="validation")] = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    logprobs: Annotated[bool | None, _NoLogprobs] = None
    top_logprobs: Annotated[int | None, _NoLogprobs] = None
    functions: Annotated[
        list[Any] | None, AfterValidator(_unsupported("this key of OpenAI's old API is not supported: use `tools`"))
    ] = None
    function_call: Annotated[
        Any, AfterValidator(_unsupported("this key of OpenAI's old API is not supported: use `tool_choice`"))
    ] = None
    blend: BlendOptions | None = None
    _form: Form | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _read_form(self) -> Self:
        try:
            self._form = Form.of(
                response_format=self.response_format, tools=self.tools or (), tool_choice=self.tool_choice
            )
        except MissingExtraError:
            raise
        except InputError as error:
            place, _, words = f"{error}".partition(": ")
            raise _problem(place, words, self.tools) from None
        return self

    @property
    def form(self) -> Form | None:
        """Form that `response_format`, `tools` and `tool_choice` require of an answer; None if they require none."""
        return self._form


class _TextConfig(_OpenRequest):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class _Reasoning(_OpenRequest):
    effort: str | None = None
    summary: str | None = None


def _refuse_chat(values: Any, key: str) -> Any:
    """Tell the client of a chat request at the path of another one which key, or which path, it takes."""
    if isinstance(values, dict) and "messages" in values:
        raise ValueError(f"`messages` belongs to /v1/chat/completions; this path takes `{key}`")
    return values


def _check_items(value: Any) -> Any:
    if not value or not (
        isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, dict) for item in value))
    ):
        raise ValueError("a text or a list of items is wanted")
    return value


_ITEMS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": "object"}},
    ]
}


class ResponsesRequest(_OpenRequest):
    """OpenAI's request of a response; keys that are not named here are passed on to the LLMs.

    Keys for what the service does not have (stored responses, work in the background) allow only null or false.
    """

    model: Text
    input: Annotated[Any, AfterValidator(_check_items), WithJsonSchema(_ITEMS, mode="validation")]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Seed | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Annotated[Any, WithJsonSchema(_CHOICE_SCHEMA, mode="validation")] = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Count | None = None
    text: _TextConfig | None = None
    reasoning: _Reasoning | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    store: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    stream_options: dict[str, Any] | None = None
    top_logprobs: int | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    background: bool | None = None
    prompt: dict[str, Any] | None = None
    blend: BlendOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_chat(cls, values: Any) -> Any:
        return _refuse_chat(values, "input")


_PROMPT_SCHEMA = {
    "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "string"}}]
}


class CompletionRequest(_OpenRequest):
    """OpenAI's older request of a text that follows a prompt; other keys are those of a chat request."""

    model: Text
    prompt: Annotated[Any, WithJsonSchema(_PROMPT_SCHEMA, mode="validation")]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: _Stop = None
    max_tokens: _TokenLimit | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Seed | None = None
    suffix: str | None = None
    echo: bool | None = None
    logprobs: int | None = None
    blend: BlendOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_chat(cls, values: Any) -> Any:
        return _refuse_chat(values, "prompt")


class _Contest(StrictRequest):
    instruction: _Instruction
    seed: Seed = 0


class RankRequest(_Contest):
    """Candidates to put in order."""

    candidates: Annotated[list[_Candidate], Field(min_length=1)]
    strategy: str | None = None
    budget: Count | None = None


class CompareRequest(_Contest):
    """Two answers."""

    a: _Candidate
    b: _Candidate


class FuseRequest(_Contest):
    """Candidates to fuse into one answer."""

    candidates: Annotated[list[_Candidate], Field(min_length=1)]
    mode: Literal["fuse", "auto"] = "fuse"
    top_k: Annotated[int, Field(ge=2, le=1000)] | None = None
    guard: bool | None = None


class RerankRequest(_OpenRequest):
    """Cohere's and Jina's `documents`, or TEI's `texts`."""

    query: Annotated[Text, AfterValidator(_read_instruction)]
    documents: Annotated[list[_Document], Field(min_length=1)] | None = None
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
    reasoning_content: str | None = None
    refusal: str | None = None
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
    ignored: list[str] | None = None
    kept: bool | None = None


class ChatCompletion(OpenAnswer):
    """The answer, with its details under `blend`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[_Choice]
    usage: _Usage
    blend: _Report


class ResponsesAnswer(OpenAnswer):
    """The answer as items, with its details under `blend`."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    blend: _Report


class _TextChoice(OpenAnswer):
    index: int
    text: str
    finish_reason: Literal["stop", "length", "content_filter"]
    logprobs: None = None


class Completion(OpenAnswer):
    """The answer as text, with its details under `blend`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[_TextChoice]
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
