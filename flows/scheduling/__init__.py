"""Runs that start by themselves: deployments, the flow that they start, and the worker."""
