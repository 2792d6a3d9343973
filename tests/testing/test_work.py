import doctest
import statistics
from types import SimpleNamespace

import numpy as np
import pytest

import llm_blender.testing.work
from llm_blender.testing import CountedBatch, CountingBackend, Work, chat_texts, counted, work_of

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
LATE = SimpleNamespace(backbone={"num_hidden_layers": 6}, alone_layers=4)
JOINT = SimpleNamespace(backbone={"num_hidden_layers": 6}, alone_layers=0)


class Backend:
    parallel = 3
    singly = False

    def __call__(self, batch):
        return "logits"

    def read(self, sequences):
        return "states"

    def compare(self, pairs):
        if not pairs:
            raise RuntimeError("broken")
        return "logits"


def test_its_example_runs():
    assert doctest.testmod(llm_blender.testing.work).failed == 0


def test_it_passes_on_what_it_counts():
    counting = CountingBackend(Backend(), iter([0, 0.5, 1, 3, 4, 5]).__next__)
    batch = SimpleNamespace(attention_mask=MASK)
    texts = [SimpleNamespace(sequence=[0] * length) for length in (4, 2)]
    found = counting.read([text.sequence for text in texts]), counting.compare([tuple(texts)]), counting(batch)
    assert found == ("states", "logits", "logits")
    assert counting.parallel == 3
    assert counting.batches == [
        CountedBatch("read", (4, 2), (4, 4), 0.5),
        CountedBatch("compare", (4, 2), (4, 4), 2),
        CountedBatch("pairs", (4, 2), (4, 4), 1),
    ]
    assert [batch.pairs for batch in counting.batches] == [0, 1, 2]


def test_work_is_the_sum_of_each_part():
    batches = [
        CountedBatch("read", (4, 2), (4, 4)),
        CountedBatch("read", (9,), (9,)),
        CountedBatch("compare", (4, 2), (4, 4)),
    ]
    assert work_of(batches, LATE) == {
        "read": Work(batches=2, rows=3, pairs=0, tokens=15, computed=17, layer_sequences=12),
        "compare": Work(batches=1, rows=2, pairs=1, tokens=6, computed=8, layer_sequences=4),
    }
    assert work_of([CountedBatch("pairs", (4, 2), (4, 4))], JOINT) == {
        "pairs": Work(batches=1, rows=2, pairs=2, tokens=6, computed=8, layer_sequences=12)
    }


def test_the_backend_comes_back_after_an_error():
    backend = Backend()
    ranker = SimpleNamespace(backend=backend, config=LATE)
    with pytest.raises(RuntimeError), counted(ranker):
        ranker.backend.compare([])
    assert ranker.backend is backend


def test_texts_are_those_of_the_seed():
    prompts, candidates = chat_texts(2, 3)
    assert chat_texts(2, 3) == (prompts, candidates) != chat_texts(2, 3, seed=1)
    assert prompts[0].startswith("A in lunch needs been water")


def test_texts_are_as_long_as_instructions_and_answers():
    prompts, candidates = chat_texts(300, 2)
    lengths = [len(text.split()) for texts in candidates for text in texts]
    assert len(lengths) == 600
    assert statistics.median(lengths) == pytest.approx(120, rel=0.2)
    assert statistics.median(len(prompt.split()) for prompt in prompts) == pytest.approx(18, rel=0.2)
    short = chat_texts(100, 5, words=20)[1]
    assert statistics.median(len(text.split()) for texts in short for text in texts) == pytest.approx(20, rel=0.2)
