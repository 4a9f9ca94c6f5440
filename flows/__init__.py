"""When, where, and every side effect: the flow, its stages, tracking and the command line."""
