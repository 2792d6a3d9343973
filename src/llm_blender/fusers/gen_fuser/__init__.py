"""GenFuser: a fuser by a sequence-to-sequence model or a causal LLM, run in this process on torch."""

from llm_blender.fusers.gen_fuser.fuser import GenFuser
from llm_blender.fusers.gen_fuser.prompts import CausalFormat, Lengths, Prompt, PromptFormat, Seq2SeqFormat

__all__ = ["CausalFormat", "GenFuser", "Lengths", "Prompt", "PromptFormat", "Seq2SeqFormat"]
