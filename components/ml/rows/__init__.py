"""Rows made ready for a model, memory-mapped."""
