"""Shared by the old configurations."""
