"""Read AlpacaEval's results: each model's outputs, and annotators' preferences over a baseline's outputs.

A folder of results holds ``MODEL/model_outputs.json``, a list of ``{instruction, output, generator, dataset}``, and
``MODEL/ANNOTATOR/annotations.json`` (older ones ``MODEL/annotations.json``), a list of ``{instruction, output_1,
output_2, generator_1, generator_2, annotator, preference}``. The baseline is 1 and the model 2; the preference is 1 or
2, anything between as a probability, and 0 or 1.5 for a draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_blender.data.records import SkipRecord, coin, number, optional_text, text
from llm_blender.data.rows import normalized_key
from llm_blender.errors import unknown_name
from llm_blender.types import Candidate, Example, LabelledPair

_Answer = tuple[str, str]
"""Model and text: an annotator may have judged another text than the model's output file holds."""


@dataclass
class _Row:
    instruction: str
    input: str
    dataset: str = ""
    answers: dict[_Answer, str] = field(default_factory=dict)
    """Text of each answer as it was read; keys ignore surrounding white space."""
    judgements: dict[tuple[str, _Answer, _Answer], float] = field(default_factory=dict)
    """Win rate of the answer, 0 to 1, by annotator, answer and the baseline's answer."""

    def add(self, model: str, answer: str) -> _Answer:
        key = model, answer.strip()
        self.answers.setdefault(key, answer)
        return key

    def names(self) -> dict[_Answer, str]:
        """Choose a name for each answer: the model's name for the one judged most often, then ``MODEL#2`` and so on."""
        judged = Counter(answer for _, *pair in self.judgements for answer in pair)
        by_judged = sorted(self.answers, key=lambda answer: -judged[answer])  # stable: ties keep the order of reading
        of_model = Counter[str]()
        names: dict[_Answer, str] = {}
        for answer in by_judged:
            of_model[answer[0]] += 1
            rank = of_model[answer[0]]
            names[answer] = answer[0] if rank == 1 else f"{answer[0]}#{rank}"
        return names


class AlpacaEval:
    """Collector of outputs and annotations, in any order, into one row per instruction.

    Attributes:
        equal: number of judgements of two identical answers, counted while `examples` runs: they become scores, but no
            pairs, since the texts do not differ.

    Args:
        known_annotators: existing annotators, even if their files are not read.
        models: models to keep, and the baselines that they were judged against; empty means all.
        annotators: annotators to keep; empty means all.
        reference: model whose answers become the rows' references.
        seed: seed of the order of the two answers of a pair.
    """

    def __init__(
        self,
        known_annotators: Sequence[str],
        *,
        models: Sequence[str],
        annotators: Sequence[str],
        reference: str,
        seed: int,
    ) -> None:
        self._models, self._annotators = frozenset(models), frozenset(annotators)
        self._reference, self._seed = reference, seed
        self.equal = 0
        self._rows: dict[str, _Row] = {}
        self._seen_models: dict[str, None] = {}
        self._seen_annotators = dict.fromkeys(known_annotators)

    def add(self, record: Mapping[str, Any], *, model: str = "", annotator: str = "") -> None:
        """Add an output or an annotation; raise as the readers of `pair_formats` do.

        The names of the model's and the annotator's folder, if given, replace those of the record (`generator` or
        `generator_2`, `annotator`): they are consistent across files.
        """
        if "preference" in record or "output_1" in record:
            self._add_judgement(record, model, annotator)
        else:
            self._add_output(record, model)

    def examples(self) -> Iterator[Example]:
        """Yield the rows in the order of their instructions, with candidates sorted by name.

        Raises:
            InputError: a selected model or annotator, or the reference, does not occur.
        """
        for model in sorted(self._models):
            if model not in self._seen_models:
                raise unknown_name("model", model, self._seen_models)
        for annotator in sorted(self._annotators):
            if annotator not in self._seen_annotators:
                raise unknown_name("annotator", annotator, self._seen_annotators)
        known = dict.fromkeys(model for row in self._rows.values() for model, _ in row.answers)
        if self._reference and self._reference not in known:
            raise unknown_name("model for the reference", self._reference, known)
        return (self._example(key, row) for key, row in self._rows.items())

    def _add_output(self, record: Mapping[str, Any], model: str) -> None:
        row = self._row(record)
        model = model or text(record, "generator")
        self._check_model(model)
        if record.get("output") is None and "output" in record:
            raise SkipRecord("there is no output")
        self._keep(row).add(model, text(record, "output"))

    def _add_judgement(self, record: Mapping[str, Any], model: str, annotator: str) -> None:
        row = self._row(record)
        baseline = _generator(record, "generator_1")
        model = model or _generator(record, "generator_2")
        annotator = annotator or text(record, "annotator")
        self._check_model(model)
        self._seen_annotators.setdefault(annotator)
        if self._annotators and annotator not in self._annotators:
            raise SkipRecord("another annotator's")
        first, second, share = text(record, "output_1"), text(record, "output_2"), _share_of_second(record)
        if share is None:
            raise SkipRecord("the annotator gave no preference")
        if baseline == model and (other := optional_text(record, "generator_2")) not in ("", model):
            baseline, first, second, share = other, second, first, 1 - share  # the file has the model first
        row = self._keep(row)
        ours, theirs = row.add(model, second), row.add(baseline, first)
        if ours == theirs:
            raise SkipRecord("an answer beside itself")
        key = annotator, ours, theirs
        if key in row.judgements:
            same = row.judgements[key] == share
            raise SkipRecord("judged already" if same else "judged already, and differently: the first one counts")
        row.judgements[key] = share

    def _check_model(self, model: str) -> None:
        self._seen_models.setdefault(model)
        if self._models and model not in self._models:
            raise SkipRecord("another model's")

    def _row(self, record: Mapping[str, Any]) -> _Row:
        row = _Row(text(record, "instruction"), optional_text(record, "input"), optional_text(record, "dataset"))
        if not (row.instruction.strip() or row.input.strip()):
            raise SkipRecord("the prompt is empty")
        return row

    def _keep(self, row: _Row) -> _Row:
        kept = self._rows.setdefault(normalized_key(Example(row.instruction, row.input)), row)
        kept.dataset = kept.dataset or row.dataset
        return kept

    def _example(self, key: str, row: _Row) -> Example:
        names = row.names()
        order = sorted(names, key=names.__getitem__)
        places = {answer: place for place, answer in enumerate(order)}
        scores: dict[_Answer, dict[str, float]] = {answer: {} for answer in order}
        pairs: list[LabelledPair] = []
        for (annotator, ours, theirs), share in sorted(
            row.judgements.items(), key=lambda item: (item[0][0], places[item[0][1]], places[item[0][2]])
        ):
            scores[ours][f"{annotator}_win_vs_{names[theirs]}"] = share
            if ours[1] == theirs[1]:
                self.equal += 1
                continue
            a, b = places[ours], places[theirs]
            if coin(self._seed, "order", key, annotator, names[ours], names[theirs]):
                a, b, share = b, a, 1 - share
            pairs.append(LabelledPair(a, b, "tie" if share == 0.5 else "a" if share > 0.5 else "b", annotator))
        reference = next((row.answers[answer] for answer in order if names[answer] == self._reference), None)
        meta = {"dataset": row.dataset} if row.dataset else {}
        if reference is not None:
            meta["reference_by"] = self._reference
        return Example(
            instruction=row.instruction,
            input=row.input,
            reference=reference,
            candidates=tuple(Candidate(row.answers[answer], names[answer], scores[answer]) for answer in order),
            pairs=tuple(pairs),
            extra={"meta": meta},
        )


def _generator(record: Mapping[str, Any], key: str) -> str:
    """Read who wrote one of the two answers; some files name a common generator once."""
    return optional_text(record, key) or optional_text(record, "generator") or text(record, key)


def _share_of_second(record: Mapping[str, Any]) -> float | None:
    """Read the win rate of the second answer, 0 to 1; None if the annotation failed."""
    if "preference" not in record:
        raise ValueError(f"`preference` is missing; the keys are {', '.join(record)}")
    value = record["preference"]
    preference = number(value)
    if value is None or (isinstance(value, float) and preference is None):
        return None
    if preference == 0:
        return 0.5
    if preference is None or not 1 <= preference <= 2:
        raise ValueError(f"`preference` must be 0 or from 1 to 2, not {value!r}")
    return round(preference - 1, 10)
