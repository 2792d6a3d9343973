"""`PairReranker` against the real library."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("rerankers", reason="rerankers is not installed: .ci/integrations runs this")

from rerankers import Document
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults

from llm_blender import InputError, PairRanker
from llm_blender.integrations.rerankers import PairReranker
from llm_blender.ranking import EvidenceWeights, Weights
from llm_blender.testing import FakeRanker

DOCS = ["bb", "dddd", "a", "ccc"]  # FakeRanker prefers the longer


@pytest.fixture(scope="module")
def bundled() -> PairReranker:
    return PairReranker(PairRanker.from_pretrained(threads=1))


def test_it_is_one_of_the_librarys_rankers(bundled):
    assert isinstance(bundled, BaseRanker)
    results = bundled.rank("What is the capital of France?", ["I do not know.", "The capital of France is Paris."])
    assert isinstance(results, RankedResults)
    assert results[0].text == "The capital of France is Paris."


def test_documents_come_best_first_with_their_own_ids():
    results = PairReranker(FakeRanker()).rank("Why?", DOCS, doc_ids=["two", "four", "one", "three"])
    assert [(result.doc_id, result.text, result.rank) for result in results] == [
        ("four", "dddd", 1),
        ("three", "ccc", 2),
        ("two", "bb", 3),
        ("one", "a", 4),
    ]
    assert results.has_scores
    assert [result.doc_id for result in results.top_k(2)] == ["four", "three"]
    scores = [result.score for result in results]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert results.get_score_by_docid("one") == min(scores)


@pytest.mark.parametrize("bias", [-9, 9])
def test_the_order_of_the_documents_changes_nothing(bias):
    ranker = PairReranker(FakeRanker(order_bias=bias))
    for docs in (DOCS, DOCS[::-1]):
        assert [result.text for result in ranker.rank("Why?", docs)] == ["dddd", "ccc", "bb", "a"]


def test_the_librarys_documents_keep_their_metadata():
    docs = [Document(text, doc_id=text, metadata={"length": len(text)}) for text in DOCS]
    results = PairReranker(FakeRanker()).rank("Why?", docs)
    assert [result.length for result in results] == [4, 3, 2, 1]
    assert results[0].document is docs[1]
    texts = PairReranker(FakeRanker()).rank("Why?", DOCS, metadata=[{"at": i} for i in range(4)])
    assert [result.at for result in texts] == [1, 3, 0, 2]


def test_one_document_and_none():
    ranker = PairReranker(FakeRanker())
    assert [(result.doc_id, result.rank) for result in ranker.rank("Why?", "alone")] == [(0, 1)]
    assert ranker.rank("Why?", []).results_count() == 0


def test_strategy_and_budget_reach_the_ranker():
    fake = FakeRanker()
    docs = ["x" * n for n in range(1, 21)]
    PairReranker(fake).rank("Why?", docs)
    assert 2 * 19 < fake.comparisons <= 2 * (19 + 2 * 4)  # auto: the best three of 20 documents
    fake = FakeRanker()
    assert PairReranker(fake, strategy="full").rank("Why?", docs)[19].text == "x"
    assert fake.comparisons == 20 * 19
    fake = FakeRanker()
    PairReranker(fake, strategy="active", budget=60).rank("Why?", docs)
    assert fake.comparisons <= 60
    with pytest.raises(InputError, match="strategy"):
        PairReranker(fake, strategy="fastest").rank("Why?", docs)


def test_results_agree_with_the_ranker(bundled):
    query, docs = "Give a tip for sleeping better.", ["Sleep.", "Go to bed at the same hour every day.", "No idea."]
    ranking = bundled.ranker.rank(query, docs)
    results = bundled.rank(query, docs)
    assert [result.doc_id for result in results] == list(ranking.order)
    assert [result.score for result in results] == [ranking.scores[i] for i in ranking.order]


def test_a_score_is_evidence_against_another_document():
    ranker = PairReranker(FakeRanker(order_bias=3))
    assert ranker.score("Why?", "ccc", "a") == 2
    assert ranker.score("Why?", "a", "ccc") == -2
    assert ranker.score("Why?", "ccc") == 3


def test_asynchronous_ranking():
    results = asyncio.run(PairReranker(FakeRanker()).rank_async("Why?", DOCS))
    assert results[0].text == "dddd"


def test_images_are_refused():
    image = Document(document_type="image", image_path="sky.png", doc_id=0)
    with pytest.raises(InputError, match=r"Document 0 has no text"):
        PairReranker(FakeRanker()).rank("Why?", [image])


def test_a_name_loads_and_a_wrong_one_says_so():
    assert PairReranker("bundled").rank("Why?", ["Because."])[0].rank == 1
    with pytest.raises(InputError, match="no-such-ranker"):
        PairReranker("no-such-ranker")


def test_the_pages_example_runs(run_examples):
    names = run_examples("rerankers")
    assert names["results"][0].text == "Air scatters blue light more than red."


def test_documents_do_not_vote_for_each_other():
    fake = FakeRanker({"x y": 2.0, "a b": 0.0, "a b c": 1.0})
    fake.evidence_weights = EvidenceWeights(several=Weights(consensus=100))
    docs = ["a b", "a b c", "x y"]
    assert fake.rank("Why?", docs).best == 1
    assert PairReranker(fake).rank("Why?", docs)[0].text == "x y"
