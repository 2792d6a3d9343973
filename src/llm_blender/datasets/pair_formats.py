"""Read pairs and scored answers: labelled pairs (PandaLM, LLMBar), chosen and rejected, scored responses.

The readers raise ValueError for a missing or malformed key, and `SkipRecord` for a record of no use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from llm_blender.conversations import PROMPT_KEYS
from llm_blender.data.prompts import answered_prompt, read_prompt
from llm_blender.data.records import SkipRecord, number, optional_text, short_values, text
from llm_blender.types import Candidate, Example, LabelledPair

ANSWER_KEYS = (
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("output_1", "output_2"),
    ("output1", "output2"),
    ("answer1", "answer2"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("conversation_a", "conversation_b"),
)
LABEL_KEYS = ("label", "winner", "preference")
_MODEL_KEYS = (("model_1", "model_2"), ("model1", "model2"), ("model_a", "model_b"), ("generator_1", "generator_2"))
_BOTH_MODELS = "cmp_key"  # PandaLM: "bloom-7b_llama-7b"
_VOTE = re.compile(r"annotator_?\d+")

Label = Literal["a", "b", "tie"]
_SIDES: tuple[Label, ...] = ("a", "b", "tie")
_LABELS: dict[str, Label] = {
    **dict.fromkeys(("1", "a", "model_a", "response_1", "output_1"), "a"),
    **dict.fromkeys(("2", "b", "model_b", "response_2", "output_2"), "b"),
    **dict.fromkeys(("0", "1.5", "tie", "both", "neither", "tie (bothbad)"), "tie"),
}


def is_vote(key: str) -> bool:
    """Return whether this is the key of an annotator's vote."""
    return _VOTE.fullmatch(key) is not None


def read_labelled_pair(record: Mapping[str, Any], *, judge: str = "", labels: Sequence[str] = ()) -> Example:
    """Read ``{instruction|prompt, input?, response1, response2, label}``, or a record with votes instead of the label.

    Without a prompt key, `input` is the prompt (LLMBar). The most frequent vote decides; equal counts are a tie.
    `labels` are those for the first answer, the second, and (optional) neither.

    Raises:
        ValueError: the record has no two answers, no prompt, no label, or an unknown one.
        SkipRecord: the label is empty, or both answers read the same.
    """
    keys = next((keys for keys in ANSWER_KEYS if set(keys) <= set(record)), None)
    if keys is None:
        wanted = ", ".join("/".join(keys) for keys in ANSWER_KEYS)
        raise ValueError(f"there are no two answers ({wanted}); the keys are {', '.join(record)}")
    if not any(record.get(key) is not None for key in PROMPT_KEYS) and record.get("input") is not None:
        record = {**{key: value for key, value in record.items() if key != "input"}, "prompt": record["input"]}
    prompt, first, second = answered_prompt(record, *keys)
    votes = [record[key] for key in record if is_vote(key)]
    label_key = next((key for key in LABEL_KEYS if key in record), None)
    if label_key is not None:
        label, by = _label(record[label_key], labels, label_key), judge
    elif votes:
        label = _majority([_label(vote, labels, "annotator") for vote in votes])
        by = f"{judge}-majority{len(votes)}".lstrip("-")
    else:
        raise ValueError(f"nothing says which answer is better: {', '.join(LABEL_KEYS)}, or annotator1, annotator2, …")
    if first.strip() == second.strip():
        raise SkipRecord("both answers read the same")
    models, model_keys = _models(record)
    used = {*PROMPT_KEYS, *keys, *model_keys, "input", "system", label_key}
    meta = short_values(record, [key for key in record if key in used or is_vote(key)])
    if votes:
        meta["votes"] = votes
    return Example(
        instruction=prompt.instruction,
        input=prompt.input,
        candidates=(Candidate(first, models[0]), Candidate(second, models[1])),
        pairs=(LabelledPair(0, 1, label, by),),
        extra={"meta": meta},
    )


def unclear_labels(found: Collection[object]) -> bool:
    """Return whether all labels of a file are 0 or 1: then 0 may mean a tie, or that the first answer is better."""
    return {number(value) for value in found} - {None} == {0.0, 1.0}


def _label(value: object, labels: Sequence[str], key: str) -> Label:
    name = _name(value)
    known = dict(zip(map(_name, labels), _SIDES, strict=False)) if labels else _LABELS
    if value is None or name == "nan":
        raise SkipRecord("nobody says which answer is better")
    if name not in known:
        raise ValueError(f"`{key}` is {value!r}; known are {', '.join(known)} (--labels sets others)")
    return known[name]


def _name(label: object) -> str:
    as_number = number(label)
    return f"{as_number:g}" if as_number is not None else str(label).strip().lower()


def _majority(votes: Sequence[Label]) -> Label:
    (label, most), *others = Counter(votes).most_common()
    return "tie" if any(count == most for _, count in others) else label


def _models(record: Mapping[str, Any]) -> tuple[tuple[str | None, str | None], tuple[str, ...]]:
    for one, other in _MODEL_KEYS:
        if isinstance(record.get(one), str) and isinstance(record.get(other), str):
            return (record[one], record[other]), (one, other)
    both = str(record.get(_BOTH_MODELS) or "").split("_")
    if len(both) == 2 and all(both):
        return (both[0], both[1]), (_BOTH_MODELS,)
    return (None, None), ()


ANSWERS = ("completions", "generations", "responses")
"""Keys of the answers: objects, or texts with a parallel list of `SCORES`."""
SCORES = ("ratings", "scores")
_MODELS = ("model_names", "models")
_TEXTS = ("response", "text", "completion", "output")


def read_scored_responses(record: Mapping[str, Any]) -> Example:
    """Read ``{instruction|prompt, completions: [{model, response, overall_score, …}]}``, or parallel lists.

    Each number of an answer whose key contains ``score`` or ``rating`` becomes a score of that name, and so does each
    aspect of UltraFeedback's ``annotations: {aspect: {Rating}}``; other values ("N/A") are ignored.

    Raises:
        ValueError: the record has no prompt or no list of answers, an answer has no text, or the lists do not fit.
        SkipRecord: there are fewer than two answers, or none has a score.
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
