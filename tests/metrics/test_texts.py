"""What every metric refuses, and how the references of one prediction are put together."""

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.metrics import bartscore, bertscore, bleu, bleurt, evaluate, rouge
from llm_blender.metrics.scores import check_texts

METRICS = [bleu, rouge, bertscore, bartscore, bleurt]


@pytest.mark.parametrize("metric", [*METRICS, evaluate])
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "2 predictions need as many references, not 1"),
        ([], [], "no predictions"),
        ("a", ["a"], "lists of texts"),
        (["a"], "a", "lists of texts"),
        (["a", None], ["a", "b"], r"Prediction 1 \(counted from 0\) is no text but NoneType"),
        (["a", "b"], ["a", None], "Prediction 1 .* has no reference"),
        (["a"], [[]], "Prediction 0 .* has no reference"),
        (["a"], [2.5], "reference of prediction 0 .* is no text but float"),
        (["a"], [["a", 3]], "reference of prediction 0 .* is no text but int"),
        (["a", "b"], ["a", "  "], "reference of prediction 1 .* is empty"),
        (["a"], [["b", ""]], "reference of prediction 0 .* is empty"),
    ],
)
def test_refused(metric, predictions, references, message):
    with pytest.raises(InputError, match=message):
        metric(predictions, references)


def test_a_prediction_beside_each_of_its_references():
    pairs = check_texts(["a", "b", "c"], [["1"], ["2", "3", "4"], ("5",)])
    assert pairs.flat == (["a", "b", "b", "b", "c"], ["1", "2", "3", "4", "5"])
    assert pairs.best(np.array([1.0, -3, -2, -9, 0])).tolist() == [1, -2, 0]
    assert pairs.examples(np.array([False, True, True, False, True])) == 2
