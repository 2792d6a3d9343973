"""Write the card of a data set that was built: sources, LLMs, metrics, and consistency of the judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_blender.config import OpenAIConfig, ReplayConfig
from llm_blender.data import Chosen
from llm_blender.datasets.importing import hash_table, markdown_table
from llm_blender.datasets.judging import Consistency
from llm_blender.datasets.plan import BuildPlan, Participant
from llm_blender.datasets.scoring import Measured, WrittenRows


@dataclass(frozen=True)
class Built:
    """Result of a build.

    Attributes:
        plan: settings of the build.
        settings: settings that the data depend on.
        digest: sha256 of `settings`.
        chosen: instructions.
        missing: number of missing answers and the first reason, by LLM.
        dropped: rows left out because an answer is missing.
        measured: metrics.
        consistency: consistency of the judge; None without a judge.
        unjudged: failed judgements, which the next run retries.
        written: files.
        cost: cost of all runs in dollars, as far as prices are known.
        unpriced: number of calls without a known price.
        calls: calls made by this run or found in the store.
    """

    plan: BuildPlan
    settings: dict[str, Any]
    digest: str
    chosen: Chosen
    missing: dict[str, tuple[int, str]]
    dropped: int
    measured: Measured
    consistency: Consistency | None
    unjudged: int
    written: tuple[WrittenRows, ...]
    cost: float
    unpriced: int
    calls: int

    @property
    def complete(self) -> bool:
        """Whether all answers, metrics and judgements are there."""
        return not (self.missing or self.measured.unavailable or self.unjudged)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "read": self.chosen.read,
            "left_out": self.chosen.left_out,
            "first_bad": self.chosen.first_bad or None,
            "instructions": len(self.chosen.rows),
            "missing": {name: {"answers": count, "reason": reason} for name, (count, reason) in self.missing.items()},
            "dropped": self.dropped,
            "metrics": list(self.measured.settings),
            "unavailable": self.measured.unavailable,
            "judge": None if self.consistency is None else self.consistency.to_dict(),
            "unjudged": self.unjudged,
            "written": [dict(vars(file)) for file in self.written],
            "cost": self.cost,
            "unpriced_calls": self.unpriced,
            "complete": self.complete,
        }


def build_card(built: Built, written: WrittenRows, pool: Sequence[Participant], judge: Participant | None) -> str:
    """Write the card of one of the files, as Markdown."""
    plan = built.plan
    parts = [
        f"# {plan.title}",
        "Rows in MixInstruct's format: instructions, the answers of several LLMs, metrics and pairwise judgements. "
        "Made by `blend data build`.",
        "## This file",
        markdown_table(
            ("file", "split", "rows", "answers", "judged ordered pairs", "sha256"),
            [
                (
                    f"`{written.path.rpartition('/')[2]}`",
                    written.split or "all",
                    *(f"{count:,}" for count in (written.rows, written.candidates, written.judged)),
                    f"`{written.sha256}`",
                )
            ],
        ),
        "## Instructions",
        hash_table(built.chosen.sources),
        markdown_table(("licence of the instructions", "rows"), _licences(built)),
        markdown_table(("what became of them", "count"), _counts(built)),
        "## Answers",
        "The answers are under the terms of the LLMs that wrote them.",
        markdown_table(
            ("LLM", "model", "where", "decoding", "answers", "missing", "price in/out, $ per million tokens"),
            [_writer(built, participant) for participant in pool],
        ),
    ]
    if plan.metrics:
        parts += ["## Metrics", markdown_table(("metric", "settings"), _metrics(built))]
    if judge is not None:
        parts += _judge(built, judge)
    parts += [
        "## Settings",
        f"sha256 of all settings: `{built.digest}`",
        f"```text\n{json.dumps(built.settings, indent=1, ensure_ascii=False, sort_keys=True)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _licences(built: Built) -> list[tuple[str, str]]:
    stated = built.chosen.licences
    rest = len(built.chosen.rows) - sum(stated.values())
    rows = [(licence, f"{count:,}") for licence, count in stated.items()]
    return [*rows, (built.plan.licence or "unknown", f"{rest:,}")] if rest else rows


def _counts(built: Built) -> list[tuple[str, str]]:
    chosen = built.chosen
    return [
        ("read", f"{chosen.read:,}"),
        *((f"left out: {reason}", f"{count:,}") for reason, count in chosen.left_out.items()),
        ("taken", f"{len(chosen.rows):,}"),
        *([("left out: an LLM's answer is missing", f"{built.dropped:,}")] if built.dropped else []),
        *((f"written: {file.split or 'all'}", f"{file.rows:,}") for file in built.written),
    ]


def _writer(built: Built, participant: Participant) -> tuple[str, ...]:
    entry = participant.entry
    missing, _ = built.missing.get(participant.name, (0, ""))
    if isinstance(entry, ReplayConfig):
        where, decoding = f"recorded rows `{entry.rows}`", "as recorded"
    else:
        where = entry.base_url if isinstance(entry, OpenAIConfig) else "llama.cpp, in the process"
        tokens = participant.sampling.max_tokens
        options = {"temperature": entry.temperature, "top_p": entry.top_p, "max_tokens": tokens, "system": entry.system}
        decoding = ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
    price = participant.price
    return (
        participant.name,
        participant.entry.model,
        where,
        decoding,
        f"{len(built.chosen.rows) * entry.samples - missing:,}",
        f"{missing:,}",
        "unknown" if price is None else f"{price.input:g} / {price.output:g}",
    )


def _metrics(built: Built) -> list[tuple[str, str]]:
    measured = [
        (name, ", ".join(f"{key} {value}" for key, value in settings.items()))
        for name, settings in built.measured.settings.items()
    ]
    return [*measured, *((name, f"not measured: {why}") for name, why in built.measured.unavailable.items())]


def _judge(built: Built, judge: Participant) -> list[str]:
    plan, consistency = built.plan, built.consistency
    parts = [
        "## Judgements",
        f"`{judge.name}` ({judge.entry.model}) compared every pair of answers of a row, "
        + ("in both orders" if plan.orders == "both" else "in one order, drawn by the seed")
        + ", with MixInstruct's four outcomes.",
    ]
    if consistency is None:
        return parts
    if consistency.in_pool:
        parts.append(
            f"**The judge is itself an LLM of the pool ({', '.join(consistency.in_pool)}): it judged its own answers, "
            f"which LLMs tend to prefer.**"
        )
    rows = [
        ("pairs", f"{consistency.pairs:,}"),
        *((f"outcome: {outcome}", f"{count:,}") for outcome, count in consistency.outcomes.items()),
        ("replies without an outcome, left out", f"{consistency.unreadable:,} of {consistency.replies:,}"),
        ("judgement changes with the order", f"{_percent(consistency.flip_rate)} of {consistency.both_orders:,} pairs"),
        ("of these, contradictions", f"{consistency.contradicted:,}"),
        ("the first answer wins", f"{_percent(consistency.first_wins)} of the decided outcomes"),
        ("outcome changes when judged again", f"{_percent(consistency.rerun_rate)} of {consistency.reruns:,} pairs"),
    ]
    return [*parts, markdown_table(("judge", ""), rows)]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
