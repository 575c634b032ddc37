"""How long prompts and answers are: all alike, or drawn from a distribution."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy

from upcurve.errors import InputError

_MEND = (
    "give a number, uniform:RATIO:LENGTH, normal:MEAN:STD[:MIN:MAX] or histogram:LENGTH=WEIGHT,..."
)
_LONGEST = 2**24


class Lengths(Protocol):
    """A distribution of lengths in tokens."""

    @property
    def nominal(self) -> int:
        """The length that the workload is named for."""

    @property
    def smallest(self) -> int:
        """No length is below."""

    @property
    def largest(self) -> int:
        """No length is above."""

    def sample(self, rng: numpy.random.Generator) -> int:
        """Draw one length."""

    def describe(self) -> str:
        """Return it in the form that `parse_lengths` reads."""


@dataclass(frozen=True, slots=True)
class Exact:
    """Every length is the same."""

    length: int

    @property
    def nominal(self) -> int:
        """The length."""
        return self.length

    smallest = largest = nominal

    def sample(self, rng: numpy.random.Generator) -> int:  # noqa: ARG002 - nothing is drawn
        """Return the length."""
        return self.length

    def describe(self) -> str:
        """Return the number."""
        return str(self.length)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Whole numbers from round(ratio * length) to length, each as likely.

    InferenceX draws its lengths so and calls a run by the largest one.
    """

    ratio: float
    length: int

    @property
    def nominal(self) -> int:
        """The largest length, as the public benchmark names it."""
        return self.length

    largest = nominal

    @property
    def smallest(self) -> int:
        """The shortest length."""
        return max(1, round(self.ratio * self.length))

    def sample(self, rng: numpy.random.Generator) -> int:
        """Draw one length."""
        return int(rng.integers(self.smallest, self.length + 1))

    def describe(self) -> str:
        """Return ratio and length."""
        return f"uniform:{self.ratio:g}:{self.length}"


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal distribution, rounded; what falls outside the bounds is drawn again."""

    mean: float
    deviation: float
    smallest: int
    largest: int

    @property
    def nominal(self) -> int:
        """The mean, before the bounds cut."""
        return round(self.mean)

    def sample(self, rng: numpy.random.Generator) -> int:
        """Draw one length."""
        while True:
            length = round(rng.normal(self.mean, self.deviation))
            if self.smallest <= length <= self.largest:
                return length

    def describe(self) -> str:
        """Return mean, standard deviation and bounds."""
        return f"normal:{self.mean:g}:{self.deviation:g}:{self.smallest}:{self.largest}"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Given lengths, each with its probability."""

    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    """They sum to 1."""

    @property
    def nominal(self) -> int:
        """The mean, rounded."""
        return round(sum(a * b for a, b in zip(self.lengths, self.weights, strict=True)))

    @property
    def smallest(self) -> int:
        """The shortest length."""
        return min(self.lengths)

    @property
    def largest(self) -> int:
        """The longest length."""
        return max(self.lengths)

    def sample(self, rng: numpy.random.Generator) -> int:
        """Draw one length."""
        return self.lengths[int(rng.choice(len(self.lengths), p=self.weights))]

    def describe(self) -> str:
        """Return lengths and weights."""
        pairs = zip(self.lengths, self.weights, strict=True)
        return "histogram:" + ",".join(f"{length}={weight:.6g}" for length, weight in pairs)


def parse_lengths(text: str, name: str) -> Lengths:
    """Read a distribution: `8192`, `uniform:0.8:8192`, `normal:1024:200`, `histogram:128=1,512=3`.

    `histogram:@FILE.json` reads an object {"128": 0.2, ...} or a list [[128, 0.2], ...].

    Args:
        text: the distribution.
        name: the option that it was given for.

    Raises:
        InputError: it is none.
    """
    kind, _, rest = text.strip().partition(":")
    try:
        if not rest:
            return Exact(_length(kind))
        parts = rest.split(":")
        if kind == "uniform" and len(parts) == 2:
            return _uniform(float(parts[0]), _length(parts[1]))
        if kind == "normal" and len(parts) in (2, 4):
            return _normal([float(each) for each in parts])
        if kind == "histogram":
            return _histogram(_pairs(rest))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(name, f"{text!r} ({error})", _MEND) from None
    except OSError as error:
        raise InputError(name, f"{text!r} ({error.strerror})", "name a file to read") from None
    raise InputError(name, f"{text!r} is no length", _MEND)


def _length(text: str) -> int:
    length = int(text)
    if not 1 <= length <= _LONGEST:
        raise ValueError(f"{length} is no length in tokens")
    return length


def _uniform(ratio: float, length: int) -> Uniform:
    if not 0 < ratio <= 1:
        raise ValueError(f"the ratio {ratio:g} is not above 0 and at most 1")
    return Uniform(ratio, length)


def _normal(values: list[float]) -> Normal:
    mean, deviation, *bounds = values
    smallest, largest = (
        (int(bounds[0]), int(bounds[1])) if bounds else (1, math.ceil(mean + 6 * deviation))
    )
    if not (1 <= mean <= _LONGEST and 0 < deviation < _LONGEST):
        raise ValueError("mean and standard deviation are not positive")
    if not (1 <= smallest <= largest and smallest <= mean + 3 * deviation):
        raise ValueError(f"{smallest} to {largest} is no range of lengths")
    if largest < mean - 3 * deviation:
        raise ValueError(f"{smallest} to {largest} is far from the mean")
    return Normal(mean, deviation, smallest, largest)


def _pairs(text: str) -> list[tuple[int, float]]:
    if text.startswith("@"):
        found: Any = json.loads(Path(text[1:]).read_text())
        pairs = list(found.items()) if isinstance(found, dict) else [tuple(each) for each in found]
    else:
        pairs = [tuple(each.split("=")) for each in text.split(",")]
    return [(_length(length), float(weight)) for length, weight in pairs]


def _histogram(pairs: list[tuple[int, float]]) -> Histogram:
    lengths, weights = zip(*pairs, strict=True)
    total = sum(weights)
    if not (min(weights) >= 0 and 0 < total < math.inf):
        raise ValueError("weights are negative, or all 0")
    if len(set(lengths)) < len(lengths):
        raise ValueError("a length is named twice")
    return Histogram(lengths, tuple(each / total for each in weights))
