"""Proof without a GPU: every kernel that a step can launch compiles for every chip, and fits it."""
