"""What of a file does not count, and why: nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Census"]

_REMARKS = {
    "repeated_rows": "{n:,} rows repeat an earlier one, prompt and candidates, and are left out",
    "unnamed_candidates": "{n:,} candidates do not say their LLM and are left out",
    "repeated_candidates": "{n:,} candidates are a second one of their LLM in their row and are left out",
    "unknown_outcomes": "{n:,} outcomes of `cmp_results` name an LLM without a candidate in their row and are left out",
    "uncompared_candidates": "{n:,} candidates stand in judged rows but were not judged and are left out",
    "few_candidates": "{n:,} rows have fewer than two candidates and are left out",
    "incomplete_rows_left_out": "{n:,} rows lack a judged candidate of an LLM and are left out, as was asked for",
    "useless_rows": "{n:,} rows are neither judged nor have scores and are left out",
    "unjudged_rows": "{n:,} rows are not judged: they count for the metrics alone",
    "partly_judged_rows": "in {n:,} rows not all pairs are judged: ranks follow from those that are",
    "ragged_rows": "in {n:,} rows not every LLM has a candidate",
    "same_prompt_rows": "{n:,} rows have the prompt of an earlier one: intervals draw them together",
    "fused_rows": "{n:,} rows hold a fused answer: its line rests on them",
    "fused_unjudged_rows": "in {n:,} of them it was not judged and is no candidate's text",
}


@dataclass(frozen=True)
class Census:
    """What was found in a file, and what of it counts.

    Attributes:
        file: where the rows come from.
        found: rows in it.
        rows: rows that count.
        counts: what was left out or is special, by the names that `to_dict` gives them too; zeros are missing.
        unjudged_models: LLMs that were judged in no row and are left out, by the number of their candidates.
        missing_models: rows without a candidate of an LLM, by LLM; zeros are missing.
        missing_scores: rows that do not count for a metric, since a candidate lacks it, by metric; zeros are missing.
        unavailable: metrics that could not be computed, and why.
    """

    file: str
    found: int
    rows: int
    counts: Mapping[str, int] = field(default_factory=dict)
    unjudged_models: Mapping[str, int] = field(default_factory=dict)
    missing_models: Mapping[str, int] = field(default_factory=dict)
    missing_scores: Mapping[str, int] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def remarks(self) -> list[str]:
        """One line for everything that a reader of the table has to know."""
        said = [text.format(n=self.counts[name]) for name, text in _REMARKS.items() if self.counts.get(name)]
        if self.unjudged_models:
            said.append(f"judged in no row and left out: {_listed(self.unjudged_models)} candidates")
        if self.missing_models:
            said.append(f"rows without a candidate, by LLM: {_listed(self.missing_models)}")
        if self.missing_scores:
            said.append(
                f"rows that do not count, since a candidate lacks it, by metric: {_listed(self.missing_scores)}"
            )
        said += [f"{metric} is unavailable: {reason}" for metric, reason in self.unavailable.items()]
        return [f"{self.file}: {remark}" for remark in said]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
