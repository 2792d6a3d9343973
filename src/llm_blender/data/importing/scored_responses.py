"""Several answers to a prompt, each with scores, as in UltraFeedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_blender.data.importing.prompts import PROMPT_KEYS, read_prompt
from llm_blender.data.importing.records import SkipRecord
from llm_blender.data.importing.values import number, optional_text, short_values, text
from llm_blender.types import Candidate, Example

__all__ = ["ANSWERS", "SCORES", "read_scored_responses"]

ANSWERS = ("completions", "generations", "responses")
"""Where the answers stand: objects, or texts beside a list of `SCORES`."""
SCORES = ("ratings", "scores")
_MODELS = ("model_names", "models")
_TEXTS = ("response", "text", "completion", "output")


def read_scored_responses(record: Mapping[str, Any]) -> Example:
    """A row of ``{instruction|prompt, completions: [{model, response, overall_score, …}]}``, or of parallel lists.

    Each number of an answer whose key holds ``score`` or ``rating`` is a score of its name, and so is each aspect of
    UltraFeedback's ``annotations: {aspect: {Rating}}``; what is no number ("N/A") is no score.

    Raises:
        ValueError: a key is missing or holds something else.
        SkipRecord: there is nothing to learn from it.
    """
    prompt = read_prompt(record)
    if prompt is None:
        raise ValueError(f"there is no prompt: one of {', '.join(PROMPT_KEYS)}; the keys are {', '.join(record)}")
    key = next((key for key in ANSWERS if isinstance(record.get(key), list)), None)
    if key is None:
        raise ValueError(f"there is no list of answers: one of {', '.join(ANSWERS)}; the keys are {', '.join(record)}")
    answers = record[key]
    if answers and all(isinstance(answer, str) for answer in answers):
        candidates = _parallel(record, key)
    else:
        candidates = [_completion(answer, i) for i, answer in enumerate(answers)]
    if len(candidates) < 2:
        raise SkipRecord("there are fewer than two answers")
    if not any(candidate.scores for candidate in candidates):
        raise SkipRecord("no answer has a score")
    return Example(
        instruction=prompt.instruction,
        input=prompt.input,
        candidates=tuple(candidates),
        extra={"meta": short_values(record, {*PROMPT_KEYS, *ANSWERS, *SCORES, *_MODELS, "input", "system"})},
    )


def _parallel(record: Mapping[str, Any], key: str) -> list[Candidate]:
    answers = record[key]
    name = next((name for name in SCORES if isinstance(record.get(name), list)), None)
    if name is None:
        raise ValueError(f"`{key}` has no scores: a list {' or '.join(SCORES)} is wanted")
    models = next((record[name] for name in _MODELS if isinstance(record.get(name), list)), [None] * len(answers))
    if not len(answers) == len(record[name]) == len(models):
        raise ValueError(f"{len(answers)} {key}, {len(record[name])} {name} and {len(models)} models do not fit")
    values = [number(value) for value in record[name]]
    score = name.removesuffix("s")
    return [
        Candidate(answer, None if model is None else str(model), {} if value is None else {score: value})
        for answer, value, model in zip(answers, values, models, strict=True)
    ]


def _completion(answer: Any, position: int) -> Candidate:
    if not isinstance(answer, Mapping):
        raise ValueError(f"answer {position} must be an object with a text and scores, not {type(answer).__name__}")
    key = next((key for key in _TEXTS if key in answer), None)
    if key is None:
        raise ValueError(f"answer {position} has no text: one of {', '.join(_TEXTS)}")
    found = {
        name: number(value) for name, value in answer.items() if "score" in name.lower() or "rating" in name.lower()
    }
    aspects = answer.get("annotations")
    for aspect, judged in aspects.items() if isinstance(aspects, Mapping) else ():
        found[aspect] = number(judged.get("Rating")) if isinstance(judged, Mapping) else None
    scores = {name: value for name, value in found.items() if value is not None}
    return Candidate(text(answer, key), optional_text(answer, "model") or None, scores)
