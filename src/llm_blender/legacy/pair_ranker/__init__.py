"""The configuration of rankers, and PairRM as a model of transformers."""
