"""Metrics and intervals, in plain numpy."""
