"""The configuration of the fuser."""
