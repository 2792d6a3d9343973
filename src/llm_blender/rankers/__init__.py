"""Who compares: rankers of one interface."""
