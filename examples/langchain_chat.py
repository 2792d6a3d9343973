"""Use an ensemble behind `blend serve` as the chat model of a LangChain chain (pip install langchain-openai)."""

from __future__ import annotations

import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

URL = os.environ.get("BLEND_URL", "http://127.0.0.1:8000/v1")


def main() -> None:
    """Answer two questions with one chain."""
    model = ChatOpenAI(model="blend", base_url=URL, api_key=os.environ.get("BLEND_KEY", "none"))
    prompt = ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("user", "Why is {thing}?")])
    chain = prompt | model | StrOutputParser()
    for answer in chain.batch([{"thing": "the sky blue"}, {"thing": "grass green"}]):
        print(answer)


if __name__ == "__main__":
    main()
