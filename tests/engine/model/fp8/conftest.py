"""Checkpoints of one seed: in FP8 and plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.engine.model.fp8.small import (
    Tensors,
    fp8_config,
    load,
)
from upcurve.engine.model.checkpoint import write_checkpoint
from upcurve.engine.model.model import Model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8") / "whole"
    write_checkpoint(folder, fp8_config(), seed=5, quantization="fp8")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8") / "plain"
    write_checkpoint(folder, fp8_config(), seed=5)
    return folder


@pytest.fixture(scope="module")
def model(whole: Path) -> Model:
    return load(whole)


@pytest.fixture
def tensors(whole: Path) -> Tensors:
    return load_file(whole / "model.safetensors")


@pytest.fixture
def config(whole: Path) -> dict[str, Any]:
    return json.loads((whole / "config.json").read_text(encoding="utf-8"))
