"""Two conversations about the same questions, as one instruction and two candidates."""

from __future__ import annotations

from collections.abc import Sequence

from llm_blender.errors import InputError
from llm_blender.types import Message, to_messages

__all__ = ["get_pair_from_conv"]

Conversation = Sequence[Message]

# "coversation" is how the published rankers were trained.
_PROMPT = "Finish the following coversation in each i-th turn by filling in <Response i> with your response."


def get_pair_from_conv(
    convAs: Sequence[Conversation],  # noqa: N803 (0.0.2's name)
    convBs: Sequence[Conversation],  # noqa: N803
) -> tuple[list[str], list[str], list[str]]:
    """The texts in which PairRM compares conversations.

    Args:
        convAs: turns of user and assistant, one after the other; roles in any usual spelling.
        convBs: others with the same turns of the user.

    Returns:
        Sources, in which ``<Response i>`` stands for the assistant's i-th turn, and the responses of A and of B.

    Raises:
        InputError: the lists are empty or differ in length, turns are not in that order, or the user of B says
            something else than that of A.
    """
    if not len(convAs) or len(convAs) != len(convBs):
        raise InputError(f"{len(convAs)} conversations A need as many B, at least one, not {len(convBs)}.")
    sources, left, right = [], [], []
    for number, (a, b) in enumerate(zip(convAs, convBs, strict=True)):
        (asked, responses_a), (asked_too, responses_b) = _turns(a, f"A[{number}]"), _turns(b, f"B[{number}]")
        if asked != asked_too:
            raise InputError(f"The user says different things in conversations A[{number}] and B[{number}].")
        turns = (f"USER: {text}\nAssistant: <Response {i}>" for i, text in enumerate(asked, 1))
        sources.append(_PROMPT + "\n".join(turns))
        left.append(_numbered(responses_a))
        right.append(_numbered(responses_b))
    return sources, left, right


def _turns(conversation: Conversation, name: str) -> tuple[list[str], list[str]]:
    """What the user says, and what the assistant says."""
    if isinstance(conversation, str) or not len(conversation):
        raise InputError(f"Conversation {name} must be a list of messages, user and assistant in turn.")
    try:
        messages = to_messages(conversation)
    except InputError as error:
        raise InputError(f"Conversation {name}: {error}") from None
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise InputError(f"Conversation {name} must be user and assistant in turn, not {', '.join(roles)}.")
    contents = [message["content"] for message in messages]
    return contents[::2], contents[1::2]


def _numbered(responses: list[str]) -> str:
    return "\n".join(f"<Response {i}>: {text}" for i, text in enumerate(responses, 1))
