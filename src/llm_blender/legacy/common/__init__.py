"""The base of the old configurations."""
