"""What a launch is recorded with, and what makes two launches the same measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import upcurve
from tests.sweep.examples import recipe, values
from upcurve.records.run import RunRecord
from upcurve.sweep.facts import Machine, engine_environment, run_records
from upcurve.sweep.recipe import Recipe

HERE = Machine(
    host={"name": "node1", "cpu": "Xeon", "usable_cores": 2, "kernel": "6.1"},
    gpus=[{"vendor": "AMD", "name": "MI355X", "memory_mib": 1, "driver": "6.4"}],
    software={"python": "3.11.7"},
)


def record(*flags: object, machine: Machine = HERE, **changes: Any) -> RunRecord:
    (found,) = run_records([recipe(*flags, **changes)], machine)
    return found


def engine(**changes: Any) -> dict[str, Any]:
    return values()["engine"] | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"series": "other", "name": "other"},
        {"tp": 8},
        {"tp": 8, "ep": 8, "gpus": 16},
        {"concurrency": [64]},
        {"repeats": 9},
        {"workload": values()["workload"] | {"timeout_s": 60}},
        {"change": "https://example.org/pull/1"},
    ],
)
def test_parallelism_concurrency_and_names_leave_the_fingerprint(changes: dict[str, Any]) -> None:
    assert record(**changes).fingerprint == record().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other", "served_model_name": "small"},
        {"precision": "fp8"},
        {"hardware": "H200"},
        {"workload": {"isl": 9, "osl": 4, "requests_per_stream": 2, "warmup": 1}},
        {"workload": {"isl": 8, "osl": 4, "requests_per_stream": 3, "warmup": 1}},
        {"workload": {"isl": 8, "osl": 4, "requests_per_stream": 2, "warmup": 1, "seed": 1}},
        {"engine": engine(version="2")},
        {"engine": engine(commit="abc")},
        {"engine": engine(image="image@sha256:0")},
        {"engine": engine(env={"OWN_SWITCH": "1"})},
    ],
)
def test_what_can_change_speed_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert record(**changes).fingerprint != record().fingerprint


def test_a_flag_changes_the_fingerprint() -> None:
    assert record("--token-ms", 3).fingerprint != record("--token-ms", 2).fingerprint


def test_an_inherited_variable_that_steers_speed_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = record().fingerprint
    monkeypatch.setenv("OWN_HOME", "elsewhere")
    assert record().fingerprint == before
    monkeypatch.setenv("SGLANG_USE_AITER", "1")
    assert record().fingerprint != before


def test_the_machine_counts_but_not_its_name() -> None:
    renamed = Machine(HERE.host | {"name": "node2", "kernel": "6.2"}, HERE.gpus, HERE.software)
    faster = Machine(HERE.host | {"cpu": "EPYC"}, HERE.gpus, HERE.software)
    assert record(machine=renamed).fingerprint == record().fingerprint
    assert record(machine=faster).fingerprint != record().fingerprint


def test_the_files_of_the_model_count(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = record(model=str(tmp_path))
    assert record(model=str(tmp_path)).fingerprint == before.fingerprint
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert record(model=str(tmp_path)).fingerprint != before.fingerprint


def test_the_record_says_what_was_asked_for() -> None:
    asked = recipe(precision="fp8", change="https://example.org/pull/1", tp=2)
    (found,) = run_records([asked], HERE)
    assert Recipe.model_validate(found.recipe) == asked
    assert (found.series, found.source, found.model) == ("small", "sweep", "small")
    assert (found.hardware, found.precision, found.change) == ("CPU", "fp8", asked.change)
    assert found.host == HERE.host
    assert found.gpus == HERE.gpus
    assert found.software["python"] == "3.11.7"
    assert found.harness_version == upcurve.__version__


def test_secrets_reach_the_engine_but_not_the_record() -> None:
    asked = recipe(engine=engine(env={"HF_TOKEN": "hf_abcdefghijkl", "MODE": "fast"}))
    (found,) = run_records([asked], HERE)
    assert engine_environment(asked)["HF_TOKEN"] == "hf_abcdefghijkl"
    assert found.recipe["engine"]["env"] == {"HF_TOKEN": "(redacted)", "MODE": "fast"}
    assert "hf_abc" not in repr(found)


def test_the_own_engine_is_known_by_its_source() -> None:
    own = record(engine=engine(command=["upcurve", "serve", "m", "--port", "{port}"]))
    assert own.engine_version == upcurve.__version__
    assert len(own.software["upcurve_engine_source"]) == 64
    assert "upcurve_engine_source" not in record().software
