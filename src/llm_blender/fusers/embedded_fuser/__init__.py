"""EmbeddedFuser: a LoRA adapter on the embedded LLM, run by llama.cpp, that writes the fused answer."""

from llm_blender.fusers.embedded_fuser.fuser import AdaptableLLM, Base, EmbeddedFuser, Settings

__all__ = ["AdaptableLLM", "Base", "EmbeddedFuser", "Settings"]
