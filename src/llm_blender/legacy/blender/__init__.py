"""`Blender`, its configuration and its functions."""
