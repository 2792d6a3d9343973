"""LLMJudge: any LLM as a ranker that compares two answers at a time."""

from llm_blender.rankers.llm_judge.calls import CallStore, JudgeTotals
from llm_blender.rankers.llm_judge.prompt import CRITERIA, judge_messages
from llm_blender.rankers.llm_judge.ranker import LLMJudge
from llm_blender.rankers.llm_judge.verdict import Verdict, read_verdict

__all__ = [
    "CRITERIA",
    "CallStore",
    "JudgeTotals",
    "LLMJudge",
    "Verdict",
    "judge_messages",
    "read_verdict",
]
