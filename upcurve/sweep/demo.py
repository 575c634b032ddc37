"""The demo's recipes: a trained model to ask, and one to measure, every optimisation off and on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from upcurve.errors import InputError
from upcurve.sweep.recipe import Recipe

SMALL = Path(__file__).parents[2] / "models" / "small"
"""The trained model of the repository, beside the package."""


def question_recipe(model: Path = SMALL) -> Recipe:
    """Return the recipe whose engine serves the trained model.

    Raises:
        InputError: the model is not there.
    """
    if not (model / "model.safetensors").is_file():
        raise InputError(
            "model",
            f"there is no trained model in {model}",
            "clone the repository and install it in place (make setup, or pip install -e .)",
        )
    return _recipe("question", [], model, [1], 1)


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
            "served_model_name": model.name,
            "precision": "fp32",
            "hardware": "CPU",
            "engine": {
                "name": "upcurve",
                "command": [*serve, *address, "--device", "cpu", *extra],
                "health": {"timeout_s": 120.0},
            },
            "workload": {"isl": 64, "osl": 32, "requests_per_stream": 4},
            "concurrency": list(concurrencies),
            "repeats": repeats,
        }
    )
