"""Upcurve: move the LLM serving curve up, and prove it."""

from importlib.metadata import version

__version__ = version("upcurve")
