"""Two answers and a label or votes that say which is better, as in PandaLM's test set and in LLMBar."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from llm_blender.data.importing.prompts import PROMPT_KEYS, answered_prompt
from llm_blender.data.importing.records import SkipRecord
from llm_blender.data.importing.values import number, short_values
from llm_blender.types import Candidate, Example, LabelledPair

__all__ = ["ANSWER_KEYS", "LABEL_KEYS", "is_vote", "read_labelled_pair", "unclear_labels"]

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
    """Whether this is the key of one annotator's vote."""
    return _VOTE.fullmatch(key) is not None


def read_labelled_pair(record: Mapping[str, Any], *, judge: str = "", labels: Sequence[str] = ()) -> Example:
    """A row of ``{instruction|prompt, input?, response1, response2, label}``, or with votes instead of the label.

    Without `instruction` and its like, `input` is the prompt (LLMBar). Of votes the most frequent one counts; where
    two are as frequent, the pair is a tie.

    Args:
        record: of the file.
        judge: who labelled it.
        labels: how the file says that the first answer is better, that the second is, and (optional) that neither is.

    Raises:
        ValueError: a key is missing or holds something else.
        SkipRecord: there is nothing to learn from it.
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
    """Whether the labels of a file are 0 and 1 alone: then 0 may mean a tie, or that the first answer is better."""
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
