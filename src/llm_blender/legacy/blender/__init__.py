"""`Blender`, its configuration and its helper functions."""
