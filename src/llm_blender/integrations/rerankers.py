"""A ranker with the interface of the ``rerankers`` library (AnswerDotAI)."""

from __future__ import annotations

import os
from typing import Any

from llm_blender.errors import InputError, MissingLibraryError
from llm_blender.rankers import as_ranker
from llm_blender.ranking import DEFAULT_BUDGET, model_alone
from llm_blender.types import Ranker

try:
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
    from rerankers.utils import prep_docs
except ImportError as error:
    raise MissingLibraryError("llm_blender.integrations.rerankers", "rerankers") from error

__all__ = ["PairReranker"]


class PairReranker(BaseRanker):  # type: ignore[misc]  # the library has no types
    """A reranker that orders documents as answers to a query by pairwise comparison.

    Args:
        model_name_or_path: a name (``bundled``, a folder, a Hub repository), or any `Ranker`.
        verbose: part of the interface, without effect.
        strategy: one of `llm_blender.ranking.STRATEGIES`. ``full`` orders all documents with N(N − 1)/2 comparisons,
            or twice as many by a ranker with a position bias; ``active`` stays within the budget; ``auto`` is ``full``
            if that fits the budget, else ``top_k``, which finds the best three documents and orders the others by the
            round of their elimination.
        budget: maximum number of comparisons per query for ``auto`` and ``active``.

    Examples:
        >>> ranker = PairReranker()
        >>> results = ranker.rank("Why is the sky blue?", ["Because.", "Air scatters blue light most."])
        >>> results.top_k(1)[0].text
        'Air scatters blue light most.'
    """

    def __init__(
        self,
        model_name_or_path: Ranker | str | os.PathLike[str] = "bundled",
        verbose: int = 0,
        *,
        strategy: str = "auto",
        budget: int = DEFAULT_BUDGET,
    ) -> None:
        self.ranker = model_alone(as_ranker(model_name_or_path))  # documents do not vote for each other
        self.verbose, self.strategy, self.budget = verbose, strategy, budget
        self.ranking_type = "pairwise"

    def rank(
        self,
        query: str,
        docs: str | list[str] | Document | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """Rank documents, best first, each with its score and its place.

        Scores are comparable within one call only.

        Args:
            query: query that the documents answer.
            docs: texts, or the library's documents.
            doc_ids: identifiers of the documents; None for 0, 1, ….
            metadata: metadata of each document.

        Raises:
            InputError: a document has no text (an image), or the strategy is unknown.
        """
        documents = prep_docs(docs, doc_ids, metadata) if docs else []
        for position, document in enumerate(documents):
            if document.text is None:
                raise InputError(f"Document {position} has no text: images cannot be compared.")
        if not documents:
            return RankedResults(results=[], query=query, has_scores=True)
        (ranking,) = self.ranker.rank_many(
            [query], [[document.text for document in documents]], strategy=self.strategy, budget=self.budget
        )
        results = [
            Result(document=documents[i], score=ranking.scores[i], rank=place)
            for place, i in enumerate(ranking.order, start=1)
        ]
        return RankedResults(results=results, query=query, has_scores=True)

    def score(self, query: str, doc: str, against: str = "") -> float:
        """Compute the logit of a document against another one; above zero, the document is better.

        Args:
            query: query that the documents answer.
            doc: the document.
            against: the other document. A pairwise ranker cannot score a single text; the default, an empty answer,
                is a weak comparison: use `rank` to order several documents.
        """
        (ranking,) = self.ranker.rank_many([query], [[doc, against]], strategy="full")
        return ranking.logit(0, 1)
