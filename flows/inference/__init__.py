"""Scoring with a registered model: the log of what was scored."""
