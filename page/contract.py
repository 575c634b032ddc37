"""Write contract.json: the schemas of the API's answers, from which the page's types are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from upcurve.dashboard.contract import common, curves, meta, runs

FILE = Path(__file__).with_name("contract.json")


def contract() -> dict[str, Any]:
    """Return an OpenAPI object that holds nothing but the schemas of every answer."""
    models = sorted(
        {
            each
            for module in (common, curves, meta, runs)
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, common.Answer)
        },
        key=lambda each: each.__name__,
    )
    _, schemas = models_json_schema(
        [(each, "serialization") for each in models], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "upcurve", "version": "1"},
        "paths": {},
        "components": {"schemas": schemas["$defs"]},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(contract(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
