"""Rankers for TRL: a pairwise judge, and a reward function for its online trainers.

Neither imports TRL: TRL accepts any object with the call signature of a judge or a reward function.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from llm_blender._inputs import check_inputs
from llm_blender.conversations import read_messages
from llm_blender.errors import InputError
from llm_blender.llms.chat_response import split_reasoning
from llm_blender.rankers import as_ranker
from llm_blender.ranking import model_alone, probability, win_probabilities
from llm_blender.types import Instruction, Ranker, instruction_text

__all__ = ["PairwiseJudge", "WinProbabilityReward"]

Conversation = Sequence[Mapping[str, Any]]
"""TRL's conversational format: messages with a text or a list of parts as content, and with calls of tools."""


class PairwiseJudge:
    """A judge of pairs of completions, like ``PairRMJudge``.

    TRL had judges until 1.0 (``trl.experimental.judges``); the trainers and callbacks of those versions accept this
    one. For later versions see `WinProbabilityReward`.

    Args:
        ranker: any `Ranker`, or a name: ``bundled``, a folder, a Hub repository.

    Examples:
        >>> judge = PairwiseJudge()
        >>> judge.judge(["What is the capital of France?"], [["No idea.", "The capital of France is Paris."]])
        [1]
    """

    def __init__(self, ranker: Ranker | str | os.PathLike[str] = "bundled") -> None:
        self.ranker = as_ranker(ranker)

    def judge(
        self,
        prompts: Sequence[str | Conversation],
        completions: Sequence[Sequence[str | Conversation]],
        shuffle_order: bool = True,
        return_scores: bool = False,
        temperature: float | None = None,
    ) -> list[int] | list[float]:
        """Judge pairs of completions.

        Args:
            prompts: texts or conversations.
            completions: two completions of each prompt.
            shuffle_order: part of TRL's interface, without effect: each pair is compared in both orders, which
                cancels the position bias.
            return_scores: return probabilities instead of winners.
            temperature: temperature of the probabilities. None takes the ranker's calibrated temperature. A number
                gives sigmoid((l(A,B) − l(B,A)) / temperature), the softmax over scores of ``PairRMJudge``, whose
                default was 1.

        Returns:
            The index of the better completion, 0 or 1, and 0 in a tie; never TRL's −1 for a missing verdict. With
            `return_scores`, the probability that the first one is better.

        Raises:
            InputError: the lists differ in length, or a prompt does not have two completions.
        """
        pairs = []
        for i, pair in enumerate(completions):
            if len(pair) != 2:
                raise InputError(f"Prompt {i} has {len(pair)} completions: a pairwise judge compares two.")
            pairs.append([_answer(completion, f"Completion {j} of prompt {i}") for j, completion in enumerate(pair)])
        rankings = self.ranker.rank_many(cast(Sequence[Instruction], prompts), pairs, strategy="full")
        if not return_scores:
            return [0 if ranking.logit(0, 1) >= 0 else 1 for ranking in rankings]
        if temperature is None:
            return [ranking.probability(0, 1) for ranking in rankings]
        return [float(probability(2 * ranking.logit(0, 1), temperature)) for ranking in rankings]


class WinProbabilityReward:
    """A reward function: the mean probability that a completion is better than its siblings.

    Siblings are the completions of one prompt, anywhere in the batch; only siblings are compared. A reward lies
    between 0 and 1, its mean over siblings is one half, and equal texts get equal rewards. A completion without
    siblings gets one half. If a trainer spreads the completions of a prompt over several processes, siblings are the
    completions on the same process.

    Only the ranker's model counts: the consensus of completions would reward a policy for repeating the same text.

    For ``GRPOTrainer`` and ``RLOOTrainer``, and instead of a judge for ``OnlineDPOTrainer``.

    Args:
        ranker: any `Ranker`, or a name: ``bundled``, a folder, a Hub repository.
        strategy: ``full`` compares every pair, N(N − 1)/2 comparisons for N completions of a prompt, or each of its two
            orders if the ranker has a position bias; ``single`` compares it in one random order then: half the work,
            with noise from the bias.

    Examples:
        >>> reward = WinProbabilityReward()
        >>> first, second = reward(["Why is the sky blue?"] * 2, ["Air scatters blue light most.", "Because."])
        >>> first > second
        True

    Raises:
        InputError: the strategy does not compare all pairs; see also `load_ranker`.
    """

    def __init__(
        self,
        ranker: Ranker | str | os.PathLike[str] = "bundled",
        *,
        strategy: Literal["full", "single"] = "full",
    ) -> None:
        if strategy not in ("full", "single"):
            raise InputError(f"A reward needs all pairs compared: the strategy is full or single, not {strategy!r}.")
        self.ranker, self.strategy = model_alone(as_ranker(ranker)), strategy
        self.__name__ = "win_probability"  # TRL logs the reward under this name

    def __call__(
        self,
        prompts: Sequence[str | Conversation],
        completions: Sequence[str | Conversation],
        **columns: Any,
    ) -> list[float]:
        """Compute one reward per completion.

        Args:
            prompts: prompt of each completion, a text or a conversation.
            completions: texts, or conversations; only the assistant's messages are ranked.
            **columns: other arguments of the trainer; not used.

        Raises:
            InputError: the lists differ in length, or a prompt is invalid.
        """
        if len(prompts) != len(completions):
            raise InputError(f"{len(completions)} completions need as many prompts, not {len(prompts)}.")
        instructions = cast(Sequence[Instruction], prompts)
        check_inputs(instructions, [[""]] * len(instructions))
        answers = [_answer(completion, f"Completion {i}") for i, completion in enumerate(completions)]
        siblings: dict[str, list[int]] = {}
        for i, instruction in enumerate(instructions):
            siblings.setdefault(instruction_text(instruction), []).append(i)
        rankings = self.ranker.rank_many(
            [instructions[group[0]] for group in siblings.values()],
            [[answers[i] for i in group] for group in siblings.values()],
            strategy=self.strategy,
        )
        rewards = [0.5] * len(completions)
        for group, ranking in zip(siblings.values(), rankings, strict=True):
            if len(group) > 1:
                for i, reward in zip(group, win_probabilities(ranking).tolist(), strict=True):
                    rewards[i] = reward
        return rewards


def _answer(completion: str | Conversation, name: str) -> str:
    """Extract the assistant's text from a completion, without reasoning, calls of tools and their results.

    Raises:
        InputError: it is neither a text nor a list of messages; the error calls it `name`.
    """
    if isinstance(completion, str):
        return split_reasoning(completion)[0]
    if isinstance(completion, Mapping) or not isinstance(completion, Sequence):
        raise InputError(f"{name} must be a text or a list of messages, not {type(completion).__name__}.")
    try:
        messages = read_messages(completion)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    texts = [message["content"] or "" for message in messages if message["role"] == "assistant"]
    return split_reasoning("\n\n".join(texts))[0]
