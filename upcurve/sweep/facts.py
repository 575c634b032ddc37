"""What a launch is recorded with: the facts that can change speed, and their fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import upcurve
from upcurve.records import environment
from upcurve.records.fingerprint import SpeedFacts, fingerprint, model_digests
from upcurve.records.run import RunRecord
from upcurve.sweep.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a sweep runs, asked once: host, GPUs and software versions."""

    host: dict[str, Any]
    gpus: list[dict[str, Any]]
    software: dict[str, Any]

    @classmethod
    def here(cls) -> Machine:
        """Return the machine that this process runs on."""
        gpus = environment.gpus()
        drivers = sorted({f"{each['vendor']} {each['driver']}" for each in gpus})
        return cls(
            host=environment.host(),
            gpus=gpus,
            software=environment.software() | ({"drivers": drivers} if drivers else {}),
        )


def engine_environment(recipe: Recipe) -> dict[str, str]:
    """Return the engine's whole environment: what it inherits and what the recipe sets."""
    return dict(os.environ) | recipe.engine.env


def run_records(recipes: Sequence[Recipe], machine: Machine) -> list[RunRecord]:
    """Return what each recipe's launches are recorded with; `started_at` is now.

    The files of a model are read once, however many recipes name it: 400 GB take minutes.

    Raises:
        InputError: a file of a model cannot be read.
    """
    folders = {name for name in (each.model for each in recipes) if Path(name).is_dir()}
    digests = {name: model_digests(Path(name)) for name in folders}
    return [_run_record(each, machine, digests.get(each.model, {})) for each in recipes]


def _run_record(recipe: Recipe, machine: Machine, model_files: dict[str, str]) -> RunRecord:
    engine = recipe.engine
    variables = environment.variables(engine_environment(recipe))
    variables |= environment.redacted(engine.env)
    own = engine.command[0] == "upcurve"
    software = machine.software | ({"upcurve_engine_source": _engine_source()} if own else {})
    version = engine.version or (upcurve.__version__ if own else "")
    facts = SpeedFacts(
        engine=engine.name,
        engine_version=version,
        engine_commit=engine.commit,
        image=engine.image,
        command=engine.command,
        environment=variables,
        model=recipe.model,
        model_files=model_files,
        precision=recipe.precision,
        workload=recipe.workload.model_dump(exclude={"timeout_s"}),
        hardware=recipe.hardware,
        software={**software, "machine": _speed_of(machine)},
        harness_version=upcurve.__version__,
    )
    recorded = recipe.model_dump(mode="json")
    recorded["engine"]["env"] = environment.redacted(engine.env)
    return RunRecord(
        series=recipe.series,
        source="sweep",
        fingerprint=fingerprint(facts),
        # A folder says where a model lies, not which it is.
        model=recipe.served_model_name,
        hardware=recipe.hardware,
        started_at=datetime.now(UTC),
        recipe=recorded,
        engine=engine.name,
        engine_version=version,
        engine_commit=engine.commit,
        image=engine.image,
        precision=recipe.precision,
        host=machine.host,
        gpus=machine.gpus,
        software={**software, "environment": variables},
        change=recipe.change,
        harness_version=upcurve.__version__,
    )


def _speed_of(machine: Machine) -> dict[str, Any]:
    """Return what of the machine can change speed: its name and boot cannot."""
    names = sorted({str(each["name"]) for each in machine.gpus})
    return {key: machine.host.get(key) for key in ("cpu", "usable_cores")} | {"gpus": names}


def _engine_source() -> str:
    """Return a SHA-256 over the own engine's source: two builds between releases differ in it."""
    digest = hashlib.sha256()
    folder = Path(upcurve.__file__).parent / "engine"
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()
