"""Stages for `datasets.Dataset.map(batched=True)` and `ray.data.Dataset.map_batches`: columns in, columns out.

Both libraries hand over batches of columns, where the stages of `llm_blender.stages` work on rows:

    from datasets import load_dataset
    from llm_blender import RankRows
    from llm_blender.integrations.datasets import ByColumns

    rows = load_dataset("json", data_files="rows.jsonl", split="train")
    ranked = rows.map(ByColumns(RankRows("bundled")), batched=True, batch_size=64)

`datasets` caches the result: the fingerprint is that of the stage's settings, before and after its use. A column has
one type, so that a result is JSON text where `as_json` is true: rankings with and without `evidence`, and errors, have
different keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_blender.stages import Stage

Columns = Mapping[str, Sequence[Any]]


class ByColumns:
    """Work on a batch of columns by a stage of rows.

    Args:
        stage: such as `llm_blender.RankRows`.
        as_json: write the stage's result, such as ``ranking``, as JSON text. False writes only objects of its keys.

    Examples:
        >>> batch = {"instruction": ["Why?"], "candidates": [["No.", "Because."]]}
        >>> json.loads(ByColumns(RankRows("longest"))(batch)["ranking"][0])["best"]
        1
    """

    def __init__(self, stage: Stage[Any], *, as_json: bool = True) -> None:
        self.stage, self.as_json = stage, as_json

    def __call__(self, batch: Columns) -> dict[str, list[Any]]:
        """Return the columns of the rows that the stage makes of a batch."""
        names = [*batch]
        rows = [dict(zip(names, map(_plain, values), strict=True)) for values in zip(*batch.values(), strict=True)]
        made = self.stage(rows)
        if self.as_json:
            for row in made:
                row[self.stage.key] = json.dumps(row[self.stage.key], ensure_ascii=False)
        columns = dict.fromkeys(name for row in made for name in row)
        return {name: [row.get(name) for row in made] for name in columns}


def _plain(value: Any) -> Any:
    """Return a cell as plain JSON values, but for times, which stay as they are; Ray hands over arrays."""
    if hasattr(value, "dtype") and value.dtype.kind in "mM":  # whose nanoseconds would become an integer
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
