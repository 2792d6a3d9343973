"""Training rankers on `transformers.Trainer`."""
