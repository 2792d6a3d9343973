"""Text metrics as options name them: ``rougeL``, ``bertscore=microsoft/deberta-xlarge-mnli``."""

from __future__ import annotations

from typing import Any

from llm_blender.errors import InputError, unknown_name

__all__ = ["metric_settings"]

_BY_MODEL = ("bertscore", "bartscore", "bleurt")


def metric_settings(names: list[str], device: str | None) -> dict[str, dict[str, Any]]:
    """Settings by metric, as `llm_blender.metrics.evaluate` takes them.

    Args:
        names: each a metric, or a metric and its model: ``NAME=MODEL``.
        device: of the models.

    Raises:
        InputError: there is no such metric, or a model is named for one that has none.
    """
    from llm_blender.metrics import METRICS

    wanted: dict[str, dict[str, Any]] = {}
    for given in names:
        name, _, model = given.partition("=")
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        if model and name not in _BY_MODEL:
            raise InputError(f"--metric {given}: {name} takes no model; these do: {', '.join(_BY_MODEL)}.")
        own = {"device": device} if device and name in _BY_MODEL else {}
        wanted[name] = own | ({"model": model} if model else {})
    return wanted
