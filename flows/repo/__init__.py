"""The checkout: its graph, plans, worktrees, revisions and remotes; only here is DVC imported."""
