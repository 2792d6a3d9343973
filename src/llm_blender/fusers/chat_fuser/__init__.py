"""ChatFuser: any LLM as the one that fuses."""

from llm_blender.fusers.chat_fuser.fuser import ChatFuser
from llm_blender.fusers.chat_fuser.prompt import CRITERIA, FusionPrompt, fusion_prompt

__all__ = ["CRITERIA", "ChatFuser", "FusionPrompt", "fusion_prompt"]
