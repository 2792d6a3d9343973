import sqlite3

import pytest

from llm_blender.bench import CachedRanker
from llm_blender.bench.cache import _BLOCK, _PROBES
from llm_blender.errors import InputError
from llm_blender.testing import FakeRanker
from llm_blender.types import Ranker

INSTRUCTIONS = ["say", "tell"]
CANDIDATES = [["a", "bb", "ccc", "bb"], ["a", "bb"]]
PROBED = 2 * _PROBES


@pytest.fixture
def path(tmp_path):
    return tmp_path / "comparisons.db"


def dicts(rankings):
    return [ranking.to_dict() for ranking in rankings]


@pytest.mark.parametrize("strategy", ["full", "single", "knockout", "bubble"])
def test_it_ranks_as_the_ranker_does(path, strategy):
    options = {"noise": 2.0, "order_bias": 0.5, "temperature": 3.0}
    recorded = CachedRanker(FakeRanker(**options), path, "fake")
    assert isinstance(recorded, Ranker)
    for _ in range(2):
        ours = recorded.rank_many(INSTRUCTIONS, CANDIDATES, strategy=strategy, seed=1)
        assert dicts(ours) == dicts(
            FakeRanker(**options).rank_many(INSTRUCTIONS, CANDIDATES, strategy=strategy, seed=1)
        )


def test_nothing_is_compared_twice_whatever_the_strategy(path):
    ranker = FakeRanker(noise=1.0)
    recorded = CachedRanker(ranker, path, "fake")
    recorded.rank_many(INSTRUCTIONS, CANDIDATES, strategy="full")
    assert ranker.comparisons == 6 + 2
    recorded.rank_many(INSTRUCTIONS, CANDIDATES, strategy="knockout")
    recorded.rank_many(INSTRUCTIONS[:1], [CANDIDATES[0][::-1]], strategy="full")
    assert ranker.comparisons == 6 + 2


def test_the_next_process_only_probes(path):
    CachedRanker(FakeRanker(noise=1.0), path, "fake").rank_many(INSTRUCTIONS, CANDIDATES, strategy="full")
    ranker = FakeRanker(noise=1.0, temperature=2.0)
    (first, _) = CachedRanker(ranker, path, "fake").rank_many(INSTRUCTIONS, CANDIDATES, strategy="full")
    assert ranker.comparisons <= PROBED
    assert (first.temperature, first.comparisons) == (2.0, 6)


def test_another_ranker_of_the_same_name_is_noticed(path):
    CachedRanker(FakeRanker(noise=1.0), path, "fake").rank_many(INSTRUCTIONS, CANDIDATES)
    with pytest.raises(InputError, match="another ranker named 'fake'"):
        CachedRanker(FakeRanker(noise=1.0, seed=1), path, "fake").rank_many(INSTRUCTIONS, CANDIDATES)


def test_one_file_holds_rankers_by_name(path):
    for seed in range(3):
        ranker = FakeRanker(noise=1.0, seed=seed)
        ours = CachedRanker(ranker, path, f"fake {seed}").rank_many(INSTRUCTIONS, CANDIDATES, strategy="full")
        assert dicts(ours) == dicts(ranker.rank_many(INSTRUCTIONS, CANDIDATES, strategy="full"))


class Interrupted(FakeRanker):
    """Stops in its second call."""

    def rank_many(self, *args, **options):
        if self.batches:
            raise KeyboardInterrupt
        return super().rank_many(*args, **options)


def test_an_interrupted_run_goes_on_where_it_stopped(path):
    texts = [[f"{i}", f"other {i}"] for i in range(_BLOCK + 10)]
    prompts = ["say"] * len(texts)
    with pytest.raises(KeyboardInterrupt):
        CachedRanker(Interrupted(), path, "fake").rank_many(prompts, texts)
    ranker = FakeRanker()
    CachedRanker(ranker, path, "fake").rank_many(prompts, texts)
    assert ranker.comparisons == PROBED + 2 * 10


def test_progress_counts_recorded_comparisons_as_done(path):
    for _ in range(2):
        calls: list[tuple[int, int]] = []
        recorded = CachedRanker(FakeRanker(), path, "fake")
        recorded.rank_many(INSTRUCTIONS, CANDIDATES, strategy="full", progress=lambda *call, to=calls: to.append(call))
        assert calls == sorted(calls, key=lambda call: call[0])
        # Of 12 + 2 comparisons expected, two equal texts spare six.
        assert calls[-1] == (8, 8)


def test_a_file_of_something_else_is_refused(path, tmp_path):
    path.write_text("not a database, but long enough to be looked at as one. " * 20)
    with pytest.raises(InputError, match="cannot keep comparisons"):
        CachedRanker(FakeRanker(), path, "fake")
    with pytest.raises(InputError, match="cannot keep comparisons"):
        CachedRanker(FakeRanker(), tmp_path / "no folder" / "file.db", "fake")


def test_the_file_is_closed_after_use(path):
    CachedRanker(FakeRanker(), path, "fake").rank_many(INSTRUCTIONS, CANDIDATES)
    with sqlite3.connect(path) as database:
        (rows,) = database.execute("SELECT count(*) FROM comparisons").fetchone()
    database.close()
    assert rows == 6 + 2


def test_as_many_lists_as_instructions(path):
    with pytest.raises(InputError, match="2 instructions"):
        CachedRanker(FakeRanker(), path, "fake").rank_many(INSTRUCTIONS, CANDIDATES[:1])
