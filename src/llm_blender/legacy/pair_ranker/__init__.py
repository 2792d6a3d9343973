"""The configuration of rankers, and PairRM as a transformers model."""
