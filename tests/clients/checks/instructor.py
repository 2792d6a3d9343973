"""Structured output with instructor, whole and partial."""

from pydantic import BaseModel


class Place(BaseModel):
    city: str


def check(client, messages):
    assert client.create(response_model=Place, messages=messages).city == "Paris"
    *_, last = client.create_partial(response_model=Place, messages=messages)
    assert last.city == "Paris"
