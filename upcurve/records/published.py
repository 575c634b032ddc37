"""Published data that ships with upcurve: measured rows, prices, GPU specifications, changes.

Sources and attributions: `published/SOURCES.md`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from upcurve.errors import InputError
from upcurve.frontier.cost import PriceTable

FOLDER = Path(__file__).parent / "published"

MEASURED = {
    "mi355x-qwen35": "mi355x_qwen35_397b_fp8_8k1k.csv",
    "h200-qwen35-35b-vllm": "h200_qwen35_35b_fp8_8k1k_vllm.csv",
}
"""Name of a measured set -> its file."""


@dataclass(frozen=True, slots=True)
class GpuSpecification:
    """What one GPU can do, by its vendor; rates are dense, per GPU."""

    hardware: str
    vendor: str
    architecture: str
    hbm_gb: float
    hbm_tb_per_s: float
    bf16_dense_tflops: float
    fp8_dense_tflops: float
    fp4_dense_tflops: float | None
    """None where the GPU has no FP4 units."""
    tdp_w: float
    all_in_kw: dict[date, float]
    """Power per GPU with its share of the machine and the building, in kW, by date of estimate."""
    scale_up_gpus: int
    """GPUs joined by the fast links."""
    scale_up_gb_per_s_one_way: float


@dataclass(frozen=True, slots=True)
class Change:
    """One upstream change behind a published move of the curve, as its authors reported it."""

    change: str
    merged_on: date
    title: str
    reported_effect: str


def measured_file(name: str) -> Path:
    """Return the file of a measured set.

    Raises:
        InputError: there is no such set; the error lists what there is.
    """
    if name not in MEASURED:
        problem = f"there is no set {name!r}" if name else "no set is named"
        raise InputError("published", problem, f"name one of {', '.join(MEASURED)}")
    return FOLDER / MEASURED[name]


def prices() -> PriceTable:
    """Return the dated prices of a GPU-hour, by hardware and tier."""
    with (FOLDER / "gpu_prices.csv").open(encoding="utf-8", newline="") as file:
        return PriceTable.from_csv(file)


@cache
def specifications() -> Mapping[str, GpuSpecification]:
    """Return the GPU specifications, by hardware name."""
    return {
        row["hardware"]: GpuSpecification(
            hardware=row["hardware"],
            vendor=row["vendor"],
            architecture=row["architecture"],
            hbm_gb=float(row["hbm_gb"]),
            hbm_tb_per_s=float(row["hbm_tb_per_s"]),
            bf16_dense_tflops=float(row["bf16_dense_tflops"]),
            fp8_dense_tflops=float(row["fp8_dense_tflops"]),
            fp4_dense_tflops=float(row["fp4_dense_tflops"]) if row["fp4_dense_tflops"] else None,
            tdp_w=float(row["tdp_w"]),
            all_in_kw={
                date(2025, 8, 1): float(row["all_in_kw_2025_08"]),
                date(2026, 7, 1): float(row["all_in_kw_2026_07"]),
            },
            scale_up_gpus=int(row["scale_up_gpus"]),
            scale_up_gb_per_s_one_way=float(row["scale_up_gb_per_s_one_way"]),
        )
        for row in _rows("gpu_specs.csv")
    }


def changes() -> list[Change]:
    """Return the upstream changes behind the MI355X curves, in the order of their merge."""
    return [
        Change(
            row["change"],
            date.fromisoformat(row["merged_on"]),
            row["title"],
            row["reported_effect"],
        )
        for row in _rows("mi355x_qwen35_changes.csv")
    ]


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
