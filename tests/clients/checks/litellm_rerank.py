"""Reranking with litellm, as with Cohere."""


def check(response):
    assert [result["index"] for result in response.results] == [1, 0]
