"""A recipe: which engine to launch, at which parallelism, and what to measure on it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from upcurve.errors import InputError
from upcurve.records.layout import Layout, gpus_of
from upcurve.sweep.accuracy import Accuracy
from upcurve.sweep.document import override, read
from upcurve.sweep.mistake import did_you_mean, mistake
from upcurve.sweep.section import Name, Positive, Section, Text

_OPTIONS = {
    **{name: f"--{name}" for name in ("tp", "ep", "dp")},
    "prefill_gpus": "--prefill-workers",
    "decode_gpus": "--decode-workers",
}
"""Sizes of a layout that a command may say, and how this engine's does."""
PLACEHOLDERS = ("port", "host", "model", "served_model_name", *_OPTIONS, "repository")
"""What `{NAME}` in a command may stand for; other braces are left as they are."""
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def _words(value: Any) -> Any:
    """Return a command line as a list of words; numbers of a YAML list are words too."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            problem = f"cannot be split into words ({error})"
            raise InputError("command", problem, "close the quotes or give a list") from error
    if isinstance(value, list):
        return [_text(word) for word in value]
    return value


def _check_command(command: list[str]) -> list[str]:
    used = [name for word in command for name in _PLACEHOLDER.findall(word)]
    for name in used:
        if name not in PLACEHOLDERS:
            mend = did_you_mean(name, PLACEHOLDERS, "the placeholders are")
            raise InputError("command", f"{{{name}}} is no placeholder", mend)
    if "port" not in used:
        mend = "add e.g. --port {port}: the sweep chooses a free one"
        raise InputError("command", "it does not say {port}", mend)
    return command


def _text(value: Any) -> Any:
    """Return a YAML number as text; leave all else for the validation."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _texts(value: Any) -> Any:
    return {key: _text(each) for key, each in value.items()} if isinstance(value, dict) else value


def _check_distinct(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise InputError("concurrency", "a value stands there twice", "repeats: N repeats them all")
    return values


def _check_vocabulary(limits: list[int]) -> list[int]:
    if len(limits) != 2 or limits[0] + 2 > limits[1]:
        mend = "give [LOW, HIGH] with LOW + 2 <= HIGH"
        raise InputError("vocabulary", f"{limits} is no range of token ids", mend)
    return limits


Command = Annotated[
    list[Text], Field(min_length=1), BeforeValidator(_words), AfterValidator(_check_command)
]
Variables = Annotated[dict[str, str], BeforeValidator(_texts)]
Concurrencies = Annotated[list[Positive], Field(min_length=1), AfterValidator(_check_distinct)]
Vocabulary = Annotated[
    list[Annotated[int, Field(ge=0, le=2**31)]], AfterValidator(_check_vocabulary)
]


class Health(Section):
    """How the engine shows that it is ready."""

    path: Annotated[str, Field(pattern="^/")] = "/health"
    """What answers HTTP 200 once the engine serves."""
    timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds from the launch until then: loading and compiling included."""


class Engine(Section):
    """The engine: how it is launched, and which build it is."""

    name: Text
    """sglang, vllm, upcurve, ..."""
    command: Command
    """Command line; a string is split as a shell would, but no shell runs it."""
    env: Variables = Field(default_factory=dict)
    """Environment variables beside the inherited ones."""
    version: str = ""
    commit: str = ""
    image: str = ""
    """Container image, with its digest where it is known; a record, not an instruction."""
    repository: str = ""
    """Folder of the engine's source, for `{repository}` in the command; bisecting changes it."""
    health: Health = Health()

    @model_validator(mode="after")
    def _check_repository(self) -> Self:
        if not self.repository and any("{repository}" in word for word in self.command):
            mend = "add repository: FOLDER below engine"
            raise InputError("engine", "its command says {repository}, and none is given", mend)
        return self


class Traffic(Section):
    """The requests that every point sends."""

    isl: Positive
    """Input length in tokens, exact."""
    osl: Positive
    """Output length in tokens, exact."""
    requests_per_stream: Positive = 10
    """Measured requests per concurrent stream."""
    warmup: Positive = 1
    """Unmeasured requests per concurrent stream before them, with other prompts."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    vocabulary: Vocabulary = Field(default_factory=lambda: [256, 1280])
    """Prompts are drawn from the token ids LOW <= id < HIGH; keep special tokens out."""
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds until a request counts as failed."""


class Recipe(Section):
    """One engine at one parallelism, and the grid of points to measure on it."""

    name: Name
    series: Name
    """Name that the points get in the store; by default the recipe's."""
    model: Name
    """Name or folder of the model."""
    served_model_name: Name
    """What requests ask for; by default `model`."""
    precision: str = ""
    hardware: Name
    """GPU name as price tables write it: MI355X, H200, CPU, ..."""
    tp: Positive = 1
    """Tensor-parallel size."""
    ep: Positive = 1
    """Expert-parallel size."""
    dp: Positive = 1
    """Data-parallel size: replicas of `tp` GPUs each."""
    prefill_gpus: Positive | None = None
    """GPUs that only prefill, where prefill and decode are apart."""
    decode_gpus: Positive | None = None
    """GPUs that only decode."""
    gpus: Positive
    """GPUs that the engine uses; by default `prefill_gpus` + `decode_gpus`, or `tp` x `dp`."""
    engine: Engine
    workload: Traffic
    concurrency: Concurrencies
    """Requests in flight, closed loop: one point each."""
    repeats: Positive = 3
    """Rounds: each launches the engine anew and measures every point once."""
    accuracy: Accuracy | None = None
    """What is asked of the same engines to see whether they still answer right."""
    change: str | None = None
    """Link to the change (pull request) that the recipe measures."""

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        derived = {"series": "name", "served_model_name": "model"}
        found = {key: values.get(source) for key, source in derived.items()}
        found["gpus"] = _gpus(values)
        return {key: value for key, value in found.items() if value is not None} | values

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        _ = self.layout
        for name in _OPTIONS:
            if getattr(self, name) is None and _says(self.engine.command, name):
                problem = f"the command says {{{name}}}, and none is given"
                raise InputError("engine", problem, f"add {name}: N")
        return self

    @property
    def layout(self) -> Layout:
        """How the engine is spread over GPUs, as its points have it."""
        return Layout(self.tp, self.ep, self.dp, self.gpus, self.prefill_gpus, self.decode_gpus)

    def command(self, *, host: str, port: int | str) -> list[str]:
        """Return the command line with its placeholders filled in."""
        values = {
            "host": host,
            "port": str(port),
            "model": self.model,
            "served_model_name": self.served_model_name,
            **{name: str(getattr(self, name)) for name in _OPTIONS},
            "repository": self.engine.repository,
        }
        return [
            _PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in self.engine.command
        ]


def _gpus(values: dict[str, Any]) -> int:
    """Return how many GPUs a layout has; what is no number is for the validation to refuse."""
    sizes: dict[str, Any] = {name: values.get(name, 1) for name in ("tp", "dp")}
    apart: dict[str, Any] = {name: values.get(name) for name in ("prefill_gpus", "decode_gpus")}
    given = [*sizes.values(), *(each for each in apart.values() if each is not None)]
    return gpus_of(**sizes, **apart) if all(isinstance(each, int) for each in given) else 1


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file.

    Args:
        path: the file.
        overrides: `key=value` with a dotted key (`engine.env.OMP_NUM_THREADS=1`) and a value in
            YAML (`concurrency=[1, 2]`), which replace what the file says.

    Raises:
        InputError: the file cannot be read or is no recipe; one line with the key and the mend.
    """
    values = read(path)
    for each in overrides:
        override(values, each)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise mistake(error, Recipe, path) from error


def check_said(path: Path, overrides: Sequence[str], recipe: Recipe) -> None:
    """Refuse overrides of a layout that the engine would not hear of.

    Args:
        path: the recipe's file.
        overrides: with which it was loaded.
        recipe: what that gave.

    Raises:
        InputError: a size was changed, and the command is as it was and does not say it.
    """
    if any(each.startswith("engine.command=") for each in overrides):
        return
    before = read(path)
    for name, option in _OPTIONS.items():
        usual = Recipe.model_fields[name].default
        said = _says(recipe.engine.command, name)
        if not said and getattr(recipe, name) != before.get(name, usual):
            problem = f"the command does not say {{{name}}}: the engine would be started as before"
            raise InputError(f"--set {name}", problem, f"write e.g. {option} {{{name}}} in it")


def _says(command: Sequence[str], name: str) -> bool:
    return any(f"{{{name}}}" in word for word in command)
