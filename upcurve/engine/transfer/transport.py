"""The transports that users may ask for; nothing here imports what computes."""

from __future__ import annotations

from typing import Literal

Transport = Literal["auto", "tcp", "copy", "nixl"]
"""Copies from device to device within a host, TCP, or NIXL; "auto" is a copy where that works, and
TCP where it does not."""
NIXL_PACKAGES = "nixl", "nixl_cu12", "nixl_cu13"
"""Any one has the library. The first one chooses by torch's version of CUDA, which a CPU build
lacks."""
