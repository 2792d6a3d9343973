"""Rankers for other libraries: TRL, distilabel, rerankers; one module each, imported by its own name."""
