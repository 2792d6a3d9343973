"""Integrations of TRL, distilabel, rerankers, `datasets` and llm; one module each, imported by its own name."""
