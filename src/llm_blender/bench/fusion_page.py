"""HTML page with fused answers beside the candidates that they were made of."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from llm_blender.bench.fusion import FusedRow
from llm_blender.bench.report import Table, html_table, page
from llm_blender.fusers.texts import LIST_MARK, WORDS, sentences

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
.why { color: var(--quiet); }
mark { color: inherit; background: light-dark(#d6e6fb, #1f3d63); border-radius: .2rem; }
mark sup { color: var(--quiet); }
.own { text-decoration: underline dotted; text-underline-offset: .2em; }
table { margin: 1rem 0; }
"""
_LEGEND = (
    "<p>In a fused text, plain sentences are word for word in the best candidate, <mark>marked<sup>2</sup></mark> "
    'ones in the candidate of that number, <span class="own">underlined</span> ones in none of them.</p>'
)


def fusion_page(
    files: Mapping[str, Sequence[FusedRow]], tables: Sequence[Table], *, examples: int = 20, seed: int = 0
) -> str:
    """Return an HTML page with tables, and below them rows of each file with fused text, candidates and reference.

    Up to `examples` rows of a file are drawn, the same ones of files with the same instructions.
    """
    parts = ["<h1>Fused answers</h1>", *map(html_table, tables), _LEGEND]
    for file, rows in files.items():
        drawn = sorted(random.Random(seed).sample(range(len(rows)), min(examples, len(rows))))
        parts.append(f"<h2>{escape(file)}: {len(drawn):,} of {len(rows):,} rows, drawn</h2>")
        parts += [_article(number + 1, rows[number]) for number in drawn]
    return page("Fused answers", parts, _STYLE)


def _article(number: int, row: FusedRow) -> str:
    reason = str(row.fusion.get("reason") or ("better" if row.let_through else ""))
    probability = row.fusion.get("probability")
    how_sure = f" ({probability:.2f})" if isinstance(probability, int | float) else ""
    why = f"{_WHY.get(reason, reason)}{how_sure}"
    return (
        f'<article id="row-{number}"><div class="prompt">{escape(row.prompt.strip())}</div>'
        f'<p class="why">Row {number}. {escape(why[:1].upper() + why[1:])}.</p>'
        f'<div class="texts">{"".join(_sections(row))}</div></article>'
    )


def _sections(row: FusedRow) -> Iterator[str]:
    """Yield the fused text, the candidates read by the fuser, and the reference."""
    used = row.fusion.get("used") or ()
    read = [i for i in used if isinstance(i, int) and 0 <= i < len(row.candidates)]
    shown = list(dict.fromkeys([*([] if row.best is None else [row.best]), *read]))[:5]
    sources = [_words(row.candidates[i].text) for i in shown]
    if isinstance(text := row.fusion.get("text"), str) and text.strip():
        yield _section("Fused", "".join(_marked(piece, sources) for piece in sentences(text.strip())))
    for place, i in enumerate(shown, 1):
        best = ", the best" if i == row.best else ""
        yield _section(f"{place}: {row.candidates[i].model}{best}", escape(row.candidates[i].text.strip()))
    yield _section("Reference", escape((row.reference or "").strip()))


def _section(title: str, text: str) -> str:
    return f'<section><h3>{escape(title)}</h3><div class="text">{text}</div></section>'


def _marked(piece: str, sources: Sequence[str]) -> str:
    """Mark a sentence with the number of the candidate that holds it."""
    if not WORDS.search(piece):
        return escape(piece)
    words = _words(LIST_MARK.sub("", piece))
    source = next((place for place, text in enumerate(sources) if words in text), None)
    body = piece.rstrip()
    after = escape(piece[len(body) :])
    if source is None:
        return f'<span class="own">{escape(body)}</span>{after}'
    return f"<mark>{escape(body)}<sup>{source + 1}</sup></mark>{after}" if source else escape(body) + after


def _words(text: str) -> str:
    return f" {' '.join(WORDS.findall(text.casefold()))} "
