"""Sweeps: the grid of parameter values run in worktrees, common stages once, ranked at the end."""
