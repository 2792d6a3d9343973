"""What to import, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ImportPlan"]


@dataclass(frozen=True)
class ImportPlan:
    """What to import, and how.

    Attributes:
        inputs: files of one format, or folders of AlpacaEval's results.
        format: a name of `FORMATS`; None finds it out.
        name: of the source: in the rows' `source` and `id`, and in the card. By default that of the first input.
        url: where the source is, for the card.
        licence: of the source, for the card.
        models: of AlpacaEval's, only these; empty is all.
        annotators: likewise.
        reference: of AlpacaEval's, the model whose answers become the rows' references.
        judge: who judged, where the file does not say.
        labels: how a file says that the first answer is better, that the second is, and (optional) that neither is.
        exclude: files of rows; what asks the same as one of them is left out.
        split: shares by name, see `parse_split`; empty makes one file.
        seed: of all that is drawn.
        skip_bad: leave bad rows out and count them, instead of stopping at the first.
    """

    inputs: tuple[Path, ...]
    format: str | None = None
    name: str = ""
    url: str = ""
    licence: str = ""
    models: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    reference: str = ""
    judge: str = ""
    labels: tuple[str, ...] = ()
    exclude: tuple[Path, ...] = ()
    split: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    skip_bad: bool = False

    @property
    def source(self) -> str:
        """The name of the source."""
        return self.name or self.inputs[0].absolute().name.partition(".")[0]
