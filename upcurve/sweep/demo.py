"""The demo's two recipes: the small trained model, every optimisation off and on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from upcurve.errors import InputError
from upcurve.sweep.recipe import Recipe

MODEL_NAME = "small"
VOCABULARY = (259, 1152)
"""Token ids of the model that are no special token and no single byte; the upper end excluded."""


def demo_model() -> Path:
    """Return the folder of the small trained model, which lies beside the package.

    Raises:
        InputError: it does not.
    """
    folder = Path(__file__).parents[2] / "models" / "small"
    if not (folder / "model.safetensors").is_file():
        raise InputError(
            "model",
            f"the demo's is not in {folder}",
            "clone the repository and install it in place (make setup, or pip install -e .)",
        )
    return folder


def demo_recipes(model: Path, *, concurrencies: Sequence[int], repeats: int) -> list[Recipe]:
    """Return the recipes of the series `baseline` and `optimised`.

    Args:
        model: folder of the checkpoint.
        concurrencies: the grid of each.
        repeats: rounds; the two series take turns in each.
    """
    return [
        _recipe(series, extra, model, concurrencies, repeats)
        for series, extra in (("baseline", ["--off", "all"]), ("optimised", []))
    ]


def _recipe(
    series: str, extra: list[str], model: Path, concurrencies: Sequence[int], repeats: int
) -> Recipe:
    serve = ["upcurve", "serve", "{model}"]
    address = ["--host", "{host}", "--port", "{port}", "--served-model-name", "{served_model_name}"]
    return Recipe.model_validate(
        {
            "name": f"demo-{series}",
            "series": series,
            "model": str(model),
            "served_model_name": MODEL_NAME,
            "precision": "fp32",
            "hardware": "CPU",
            "engine": {
                "name": "upcurve",
                "command": [*serve, *address, "--device", "cpu", *extra],
                "health": {"timeout_s": 120.0},
            },
            "workload": {
                "isl": 64,
                "osl": 32,
                "requests_per_stream": 4,
                "vocabulary": list(VOCABULARY),
            },
            "concurrency": list(concurrencies),
            "repeats": repeats,
        }
    )
