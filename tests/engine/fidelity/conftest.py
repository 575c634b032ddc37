"""Kernels under Triton's interpreter."""

from tests.engine.interpreter import silent

__all__ = ["silent"]
