"""The card of an imported file: where it comes from, and what happened to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_blender.data.importing.imported import Imported, Written

__all__ = ["data_card"]


def data_card(imported: Imported, written: Written) -> str:
    """The card of one of the files that an import wrote, as Markdown."""
    plan = imported.plan
    unknown = "unknown"
    parts = [
        f"# {plan.source}",
        _table(
            ("", ""),
            [
                ("source", plan.source),
                ("url", plan.url or unknown),
                ("licence", plan.licence or unknown),
                ("format", imported.format),
                ("made by", "`blend data import`"),
            ],
        ),
        "## This file",
        _table(
            ("file", "split", "rows", "answers", "judged pairs", "ties among them", "sha256"),
            [
                (
                    f"`{written.file_name}`",
                    written.split or "all",
                    *(f"{count:,}" for count in (written.rows, written.candidates, written.pairs, written.ties)),
                    f"`{written.sha256}`",
                )
            ],
        ),
        "## How it was made",
        _table(("setting", "value"), _settings(imported)),
        _table(("what became of it", "count"), _counts(imported)),
    ]
    if imported.remarks:
        parts.append("\n".join(f"- {remark}." for remark in imported.remarks))
    parts += [
        "## What it was made of",
        _table(("file", "sha256"), [(f"`{name}`", f"`{digest}`") for name, digest in imported.inputs.items()]),
    ]
    if imported.excluded:
        parts += [
            "Left out is what asks the same as a row of:",
            _table(("file", "sha256"), [(f"`{name}`", f"`{digest}`") for name, digest in imported.excluded.items()]),
        ]
    return "\n\n".join(parts) + "\n"


def _settings(imported: Imported) -> list[tuple[str, str]]:
    plan = imported.plan
    values: Mapping[str, object] = {
        "models": ", ".join(plan.models),
        "annotators": ", ".join(plan.annotators),
        "reference": plan.reference,
        "judge": plan.judge,
        "labels": ", ".join(plan.labels),
        "split, by the hash of the normalised prompt": ", ".join(
            f"{name} {share:g}" for name, share in plan.split.items()
        ),
        "seed": plan.seed,
    }
    return [(name, str(value)) for name, value in values.items() if value != ""]


def _counts(imported: Imported) -> list[tuple[str, str]]:
    return [
        ("records read", f"{imported.records:,}"),
        *((f"records left out: {reason}", f"{count:,}") for reason, count in sorted(imported.skipped.items())),
        ("rows made of the others", f"{imported.rows:,}"),
        *((f"rows left out: {reason}", f"{count:,}") for reason, count in sorted(imported.left_out.items())),
        *((f"rows written: {file.split or 'all'}", f"{file.rows:,}") for file in imported.written),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
