"""Training of rankers and fusers on `transformers.Trainer`: recipes, one loop, a learner per model, model cards."""
