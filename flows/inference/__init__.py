"""The model in use: which version it is, how files are scored with it, and the log of what was scored."""
