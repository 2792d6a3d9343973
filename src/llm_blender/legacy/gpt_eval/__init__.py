"""Ranks from comparisons, and correlations between ranks."""
