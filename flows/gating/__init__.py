"""The promotion gate: whether a new model becomes the champion, and why."""
