"""What an answer rests on, kept in the history where the client wishes it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from llm_blender.errors import StoreError
from llm_blender.server.answering import report
from llm_blender.server.asking import Question
from llm_blender.server.schemas import BlendOptions, ChatRequest
from llm_blender.server.service import Service
from llm_blender.types import Answer

__all__ = ["reported"]

logger = logging.getLogger(__name__)

_NOTHING = BlendOptions()


async def reported(
    service: Service, question: Question, answer: Answer, request: ChatRequest, id: str, owner: str
) -> dict[str, Any]:
    """What the client is told under `blend`; an answer that cannot be kept is told all the same.

    Args:
        service: whose history it is.
        question: that was asked.
        answer: to it.
        request: with the client's wishes.
        id: of the completion.
        owner: who asked.
    """
    options, values = request.blend or _NOTHING, report(question, answer)
    if options.keep and service.history is not None:
        try:
            await asyncio.to_thread(service.history.keep, id, question.prompt, answer.text, values, owner=owner)
        except StoreError as error:
            logger.error("an answer was not kept: %s", error)
            values["kept"] = False
        else:
            values["kept"] = True
    if not options.candidates:
        for candidate in values["candidates"]:
            candidate.pop("text")
            candidate.pop("reasoning", None)
    return values
