"""How weights come and how they are kept."""

from __future__ import annotations

from typing import Literal

LoadFormat = Literal["auto", "dummy"]
"""auto: from the folder's files; dummy: drawn at random."""
QuantizationFormat = Literal["none", "fp8"]
"""none: as the checkpoint is; fp8: in blocks of 128 x 128."""
