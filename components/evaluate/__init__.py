"""The evaluate stage: every model on the same frozen test rows."""
