"""Evaluate predictions by several metrics, in one table with confidence intervals."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llm_blender.errors import CheckpointError, InputError, MissingExtraError, NotFoundError, WorkError, unknown_name
from llm_blender.metrics.bart_score import bartscore, load_bart_scorer
from llm_blender.metrics.bert_score import bertscore, load_bert_scorer
from llm_blender.metrics.bleurt_score import bleurt, load_bleurt_scorer
from llm_blender.metrics.overlap import ROUGE, bleu, rouge
from llm_blender.metrics.scores import References, Scores, check_texts
from llm_blender.ranking import Interval, bootstrap_interval
from llm_blender.types import OnProgress

Metric = Callable[..., Scores]
"""A function of predictions and references, with keyword arguments for its settings and `progress`."""

METRICS: dict[str, Metric] = {
    "bleu": bleu,
    **{name: partial(rouge, variant=name) for name in ROUGE},
    "bertscore": bertscore,
    "bartscore": bartscore,
    "bleurt": bleurt,
}
"""The metrics by name."""

_OK = "ok"


@dataclass(frozen=True, eq=False)
class EvaluationRow:
    """Result of one metric.

    Attributes:
        metric: name.
        status: ``ok``, or ``unavailable: `` and the reason; then the other attributes are None.
        scores: of each prediction.
        ci95: 95 % interval of their mean, resampled by example.
    """

    metric: str
    status: str
    scores: Scores | None = None
    ci95: Interval | None = None

    @property
    def mean(self) -> float | None:
        """Mean score of the predictions."""
        return None if self.scores is None else self.scores.mean

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; only name and status of an unavailable metric."""
        if self.scores is None or self.ci95 is None:
            return {"metric": self.metric, "status": self.status}
        return {
            "metric": self.metric,
            "status": self.status,
            "mean": self.mean,
            "ci95": list(self.ci95),
            **({} if self.scores.corpus is None else {"corpus": self.scores.corpus}),
            "truncated": self.scores.truncated,
            "settings": dict(self.scores.settings),
            "values": self.scores.values.tolist(),
            "parts": {name: values.tolist() for name, values in self.scores.parts.items()},
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of several metrics for n predictions.

    Attributes:
        examples: n.
        rows: one per metric, in the order of the request.
    """

    examples: int
    rows: tuple[EvaluationRow, ...]

    def __iter__(self) -> Iterator[EvaluationRow]:
        return iter(self.rows)

    def __getitem__(self, metric: str) -> EvaluationRow:
        """Return the row of a metric.

        Raises:
            InputError: the metric was not requested.
        """
        for row in self.rows:
            if row.metric == metric:
                return row
        raise unknown_name("metric", metric, [row.metric for row in self.rows])

    def __str__(self) -> str:
        width = max((len(row.metric) for row in self.rows), default=0)
        return "\n".join(f"{row.metric:<{width}}  {_cell(row)}" for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"examples": self.examples, "metrics": [row.to_dict() for row in self.rows]}


def evaluate(
    predictions: Sequence[str],
    references: References,
    metrics: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("bleu", "rougeL", "bertscore", "bartscore", "bleurt"),
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Measure predictions against references.

    A metric whose model or library is unavailable gets a row with the reason and no score; the others are measured.

    Args:
        predictions: texts.
        references: one per prediction, or several.
        metrics: names of `METRICS`, or settings by name: ``{"bleu": {}, "bertscore": {"model": "…"}}``, with the
            keyword arguments of the function.
        groups: key of each prediction's instruction, if several predictions answer the same one: they are resampled
            together.
        seed: of the bootstrap.
        progress: called with the work done and the total, in predictions times metrics.

    Raises:
        InputError: as for `check_texts`, a metric or setting is unknown, or a value of one is wrong.

    Examples:
        >>> table = evaluate(["The sky is blue."], ["The sky is blue!"], ["bleu"])
        >>> round(table["bleu"].mean)
        76
    """
    pairs = check_texts(predictions, references)
    if groups is not None and len(groups) != len(pairs):
        raise InputError(f"{len(pairs)} predictions need as many groups, not {len(groups)}.")
    wanted = _settings(metrics)
    numbers = None if groups is None else _numbered(groups)
    rows = []
    for place, (name, settings) in enumerate(wanted.items()):
        report = None if progress is None else _Share(progress, place, len(wanted), len(pairs))
        try:
            scores = METRICS[name](predictions, references, **settings, progress=report)
        except (NotFoundError, CheckpointError, MissingExtraError, WorkError) as error:
            rows.append(EvaluationRow(name, f"unavailable: {error}"))
            if report is not None:
                report(1, 1)
        else:
            rows.append(EvaluationRow(name, _OK, scores, bootstrap_interval(scores.values, numbers, seed=seed)))
    return Evaluation(len(pairs), tuple(rows))


def unload_models() -> None:
    """Free the models that `bertscore`, `bartscore` and `bleurt` keep for their next call."""
    for loader in (load_bert_scorer, load_bart_scorer, load_bleurt_scorer):
        loader.cache_clear()


@dataclass(frozen=True)
class _Share:
    """Progress of one of several metrics, as progress of the whole."""

    progress: OnProgress
    place: int
    metrics: int
    examples: int

    def __call__(self, done: int, total: int) -> None:
        self.progress(self.place * self.examples + self.examples * done // total, self.metrics * self.examples)


def _settings(metrics: Sequence[str] | Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    if isinstance(metrics, str):
        metrics = [metrics]
    given = metrics if isinstance(metrics, Mapping) else {name: {} for name in metrics}
    if not given:
        raise InputError(f"No metric is given; known: {', '.join(METRICS)}.")
    for name, settings in given.items():
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        known = _keywords(METRICS[name])
        for key in settings or {}:
            if key not in known:
                raise unknown_name(f"setting of {name}", key, known)
    return {name: dict(settings or {}) for name, settings in given.items()}


def _keywords(metric: Metric) -> list[str]:
    fixed = metric.keywords if isinstance(metric, partial) else {}
    parameters = inspect.signature(metric).parameters.values()
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in {"progress", *fixed}
    ]


def _numbered(groups: Sequence[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in groups]


def _cell(row: EvaluationRow) -> str:
    if row.ci95 is None:
        return row.status
    low, high = row.ci95
    return f"{row.mean:.4g} ({low:.4g} to {high:.4g})"
