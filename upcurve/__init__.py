"""Upcurve: move the LLM serving curve up, and prove it."""

__version__ = "0.1.0"
