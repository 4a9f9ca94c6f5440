"""Watching a model in use: whether what it meets still looks like what it was trained on."""
