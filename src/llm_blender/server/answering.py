"""An `Answer` in OpenAI's words, and under `blend` in our own."""

from __future__ import annotations

import math
import time
import uuid
from typing import Any

from llm_blender.llms.chat_response import tool_calls_text
from llm_blender.ranking import probability_matrix
from llm_blender.server.asking import Question
from llm_blender.types import Answer, Candidate, Ranking

__all__ = ["choices_of", "finish_reason", "head", "message", "report", "standing", "usage"]

_FINISHES = frozenset({"stop", "length", "content_filter"})


def head(kind: str, model: str) -> dict[str, Any]:
    """What every answer begins with."""
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def choices_of(answer: Answer, count: int) -> list[Candidate]:
    """The answers that a client gets, best first: what was fused, if anything was, and then the candidates."""
    ranked = [answer.candidates[i] for i in answer.ranking.order]
    if answer.mode == "fuse":
        ranked.insert(0, Candidate(answer.text, finish_reason="stop"))
    return ranked[:count]


def message(candidate: Candidate) -> dict[str, Any]:
    """A candidate as the assistant's turn."""
    text = candidate.text.strip()
    if candidate.tool_calls is None:
        return {"role": "assistant", "content": text}
    said = text.removesuffix(tool_calls_text(candidate.tool_calls)).strip()
    return {"role": "assistant", "content": said or None, "tool_calls": list(candidate.tool_calls)}


def finish_reason(candidate: Candidate) -> str:
    """Why a candidate ends."""
    if candidate.tool_calls is not None:
        return "tool_calls"
    return candidate.finish_reason if candidate.finish_reason in _FINISHES else "stop"


def usage(answer: Answer) -> dict[str, int]:
    """Tokens of all calls."""
    read, written = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def report(question: Question, answer: Answer) -> dict[str, Any]:
    """What the answer rests on."""
    values = answer.to_dict()
    del values["text"]
    if answer.fusion is not None:
        values["fusion"]["message"] = answer.fusion.message
    return {**values, "ranking": standing(answer.ranking), "seed": question.seed}


def standing(ranking: Ranking) -> dict[str, Any]:
    """A ranking, with the probability that one candidate is better than another; null where not compared."""
    matrix = probability_matrix(ranking).tolist()
    rows = [[None if math.isnan(value) else round(value, 4) for value in row] for row in matrix]
    return {**ranking.summary(), "probabilities": rows}
