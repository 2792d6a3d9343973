"""Reranking with Cohere's client."""


def check(client, query, documents):
    response = client.rerank(model="blend", query=query, documents=documents, top_n=2)
    assert [result.index for result in response.results] == [1, 0]
    assert response.results[0].relevance_score > response.results[1].relevance_score
