"""HTML page with fused answers beside the candidates that they were made of."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from llm_blender.bench.fusion import FusedRow
from llm_blender.bench.report import Table, html_table, page
from llm_blender.fusers.texts import LIST_MARK, WORDS, sentences

_MOST = 5  # candidates of a row that are shown
_WHY = {
    "better": "returned: the ranker prefers it to the best candidate",
    "unguarded": "returned without a comparison",
    "worse": "not returned: the ranker does not prefer it to the best candidate",
    "copy": "not returned: it is the best candidate",
    "empty": "not returned: it is empty",
    "repeats": "not returned: it repeats itself",
    "echo": "not returned: it repeats the prompt",
    "cut_off": "not returned: it is cut off",
    "failed": "the fuser failed",
    "too_small": "not fused: two candidates do not fit into what the fuser reads",
    "clear": "not fused: the best candidate is clear",
    "one_candidate": "not fused: there is one candidate",
    "same_candidates": "not fused: all candidates are the same",
    "no_candidates": "not fused: there is no candidate",
}
_STYLE = """
article { border-top: 2px solid var(--line); margin-top: 2rem; padding-top: 1rem; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; align-items: start; }
.texts section { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; min-width: 0; }
.texts h3 { font-size: .85rem; margin: 0 0 .4rem; color: var(--quiet); font-weight: 600; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
.prompt { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 14rem; overflow-y: auto; font-weight: 600; }
.why, .how { color: var(--quiet); }
mark { color: inherit; background: light-dark(#d6e6fb, #1f3d63); border-radius: .2rem; }
mark sup { color: var(--quiet); }
.own { text-decoration: underline dotted; text-underline-offset: .2em; }
table { margin: 1rem 0; }
.show { display: flex; gap: 1.2rem; }
body:has(#given:not(:checked)) .given, body:has(#back:not(:checked)) .back,
body:has(#none:not(:checked)) .none { display: none; }
"""
_PART = re.compile(r"(?<=[:;]\s)|(?<=[:;]\*\*\s)|(?<=[：；])")
_GROUPS = {
    "given": "fused text returned",
    "back": "fused text written, best candidate returned",
    "none": "not fused",
}
_LEGEND = (
    "<p>In a fused text, plain sentences are word for word in the best candidate, <mark>marked<sup>2</sup></mark> "
    'ones in the candidate of that number, <span class="own">underlined</span> ones in none of those shown. A sentence '
    "that none of them holds is split at its colons.</p>"
)


def fusion_page(
    files: Mapping[str, Sequence[FusedRow]], tables: Sequence[Table], *, examples: int = 20, seed: int = 0
) -> str:
    """Return an HTML page with tables, and below them rows of each file with fused text, candidates and reference.

    Up to `examples` rows of a file are drawn, the same ones of files with the same instructions.
    """
    drawn_of = {
        file: sorted(random.Random(seed).sample(range(len(rows)), min(examples, len(rows))))
        for file, rows in files.items()
    }
    counts = Counter(_group(files[file][number]) for file, drawn in drawn_of.items() for number in drawn)
    parts = ["<h1>Fused answers</h1>", *map(html_table, tables), _LEGEND, _filters(counts)]
    for file, rows in files.items():
        drawn = drawn_of[file]
        parts.append(f"<h2>{escape(file)}: {len(drawn):,} of {len(rows):,} rows, drawn</h2>")
        parts += [_article(number + 1, rows[number]) for number in drawn]
    return page("Fused answers", parts, _STYLE)


def _filters(counts: Mapping[str, int]) -> str:
    """Return a check box for each group of rows, which hides it without a script."""
    boxes = "".join(
        f'<label><input type="checkbox" id="{group}" checked> {title} ({counts.get(group, 0):,})</label>'
        for group, title in _GROUPS.items()
    )
    return f'<p class="show">Show rows: {boxes}</p>'


def _group(row: FusedRow) -> str:
    if row.let_through:
        return "given"
    return "back" if _written(row) else "none"


def _written(row: FusedRow) -> str:
    text = row.fusion.get("text")
    return text.strip() if isinstance(text, str) else ""


def _article(number: int, row: FusedRow) -> str:
    reason = str(row.fusion.get("reason") or ("better" if row.let_through else ""))
    probability = row.fusion.get("probability")
    how_sure = f" ({probability:.2f})" if isinstance(probability, int | float) else ""
    why = f"{_WHY.get(reason, reason)}{how_sure}"
    return (
        f'<article id="row-{number}" class="{_group(row)}"><div class="prompt">{escape(row.prompt.strip())}</div>'
        f'<p class="why">Row {number}. {escape(why[:1].upper() + why[1:])}.</p>'
        f'<p class="how">{_how_many(row)}</p><div class="texts">{"".join(_sections(row))}</div></article>'
    )


def _shown(row: FusedRow) -> list[int]:
    """Return the places of the best candidate and of those that the fuser used, at most five."""
    used = row.fusion.get("used") or ()
    read = [i for i in used if isinstance(i, int) and 0 <= i < len(row.candidates)]
    return list(dict.fromkeys([*([] if row.best is None else [row.best]), *read]))[:_MOST]


def _how_many(row: FusedRow) -> str:
    shown, total = _shown(row), len(row.candidates)
    if len(shown) == total:
        return f"All {total} candidates are shown."
    best = [] if row.best is None else ["the best one"]
    used = [] if shown == [row.best] else ["those that the fuser used"]
    verb = "is" if len(shown) == 1 else "are"
    return f"{len(shown)} of {total} candidates {verb} shown: {', and '.join([*best, *used])}."


def _sections(row: FusedRow) -> Iterator[str]:
    """Yield the fused text, the candidates used by the fuser, and the reference."""
    shown = _shown(row)
    sources = [_words(row.candidates[i].text) for i in shown]
    if text := _written(row):
        pieces = (piece for sentence in sentences(text) for piece in _pieces(sentence, sources))
        yield _section("Fused", "".join(_marked(piece, sources) for piece in pieces))
    for place, i in enumerate(shown, 1):
        best = ", the best" if i == row.best else ""
        yield _section(f"{place}: {row.candidates[i].model}{best}", escape(row.candidates[i].text.strip()))
    yield _section("Reference", escape((row.reference or "").strip()))


def _section(title: str, text: str) -> str:
    return f'<section><h3>{escape(title)}</h3><div class="text">{text}</div></section>'


def _pieces(sentence: str, sources: Sequence[str]) -> list[str]:
    """Split a sentence that no candidate holds after its colons and semicolons."""
    return [sentence] if _source(sentence, sources) is not None else _PART.split(sentence)


def _source(piece: str, sources: Sequence[str]) -> int | None:
    words = _words(LIST_MARK.sub("", piece))
    return next((place for place, text in enumerate(sources) if words in text), None)


def _marked(piece: str, sources: Sequence[str]) -> str:
    """Mark a sentence with the number of the candidate that holds it."""
    if not WORDS.search(piece):
        return escape(piece)
    source = _source(piece, sources)
    body = piece.rstrip()
    after = escape(piece[len(body) :])
    if source is None:
        return f'<span class="own">{escape(body)}</span>{after}'
    return f"<mark>{escape(body)}<sup>{source + 1}</sup></mark>{after}" if source else escape(body) + after


def _words(text: str) -> str:
    return f" {' '.join(WORDS.findall(text.casefold()))} "
