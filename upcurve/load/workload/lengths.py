"""How long prompts and answers are: all alike, or drawn from a distribution."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

import numpy

from upcurve.errors import InputError

_MEND = (
    "give a number, uniform:RATIO:LENGTH, normal:MEAN:STD[:MIN:MAX] or histogram:LENGTH=WEIGHT,..."
)
_LONGEST = 2**24
_CUT = 4
"""Standard deviations at which a normal distribution without bounds is cut: 6e-5 lie beyond."""


class Lengths(Protocol):
    """A distribution of lengths in tokens."""

    @property
    def nominal(self) -> int:
        """The length that the workload is named for."""

    @property
    def mean(self) -> float:
        """The expected length."""

    @property
    def minimum(self) -> int:
        """No length is below."""

    @property
    def maximum(self) -> int:
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

    minimum = maximum = nominal

    @property
    def mean(self) -> float:
        """The length."""
        return float(self.length)

    def sample(self, rng: numpy.random.Generator) -> int:  # noqa: ARG002 - nothing is drawn
        """Return the length."""
        return self.length

    def describe(self) -> str:
        """Return the number."""
        return str(self.length)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Whole numbers from round(ratio * length) to length, each as likely.

    InferenceX draws its lengths so, its shortest rounded down, and calls a run by the longest one
    (SemiAnalysisAI/InferenceX, utils/bench_serving/benchmark_serving.py, sample_random_requests).
    """

    ratio: float
    length: int

    @property
    def nominal(self) -> int:
        """The longest length, as the public benchmark names it."""
        return self.length

    maximum = nominal

    @property
    def mean(self) -> float:
        """The middle of the range."""
        return (self.minimum + self.length) / 2

    @property
    def minimum(self) -> int:
        """The shortest length."""
        return max(1, round(self.ratio * self.length))

    def sample(self, rng: numpy.random.Generator) -> int:
        """Draw one length."""
        return int(rng.integers(self.minimum, self.length + 1))

    def describe(self) -> str:
        """Return ratio and length."""
        return f"uniform:{_plain(self.ratio)}:{self.length}"


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal distribution cut at its bounds, rounded to whole numbers."""

    location: float
    """Mean of the normal distribution, before the bounds cut."""
    deviation: float
    """Its standard deviation, before the bounds cut."""
    minimum: int
    maximum: int

    @property
    def nominal(self) -> int:
        """The mean, rounded."""
        return round(self.mean)

    @property
    def mean(self) -> float:
        """Mean of the truncated normal distribution, before rounding.

        Johnson, Kotz, Balakrishnan: Continuous Univariate Distributions, volume 1, section 10.1.
        """
        low, high = self._bounds
        densities = self.deviation**2 * (self._whole.pdf(low) - self._whole.pdf(high))
        return self.location + densities / (self._whole.cdf(high) - self._whole.cdf(low))

    def sample(self, rng: numpy.random.Generator) -> int:
        """Draw one length, by the inverse of the distribution: one draw, whatever is cut off."""
        low, high = (self._whole.cdf(bound) for bound in self._bounds)
        # The inverse is defined strictly between 0 and 1.
        share = min(max(low + (high - low) * rng.random(), 2**-53), 1 - 2**-53)
        return min(max(round(self._whole.inv_cdf(share)), self.minimum), self.maximum)

    def describe(self) -> str:
        """Return mean, standard deviation and bounds."""
        facts = (self.location, self.deviation, self.minimum, self.maximum)
        return "normal:" + ":".join(_plain(each) for each in facts)

    @property
    def _whole(self) -> NormalDist:
        return NormalDist(self.location, self.deviation)

    @property
    def _bounds(self) -> tuple[float, float]:
        """What rounds to the bounds."""
        return self.minimum - 0.5, self.maximum + 0.5


@dataclass(frozen=True, slots=True)
class Histogram:
    """Given lengths, each with its weight."""

    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    _sums: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Add the weights up, once."""
        object.__setattr__(self, "_sums", tuple(accumulate(self.weights)))

    @property
    def nominal(self) -> int:
        """The mean, rounded."""
        return round(self.mean)

    @property
    def mean(self) -> float:
        """The expected length."""
        return sum(a * b for a, b in zip(self.lengths, self.weights, strict=True)) / self._sums[-1]

    @property
    def minimum(self) -> int:
        """The shortest length."""
        return min(self.lengths)

    @property
    def maximum(self) -> int:
        """The longest length."""
        return max(self.lengths)

    def sample(self, rng: numpy.random.Generator) -> int:
        """Draw one length."""
        place = bisect_right(self._sums, rng.random() * self._sums[-1])
        # The product may round up to the whole sum.
        return self.lengths[min(place, len(self.lengths) - 1)]

    def describe(self) -> str:
        """Return lengths and weights."""
        pairs = zip(self.lengths, self.weights, strict=True)
        return "histogram:" + ",".join(f"{length}={_plain(weight)}" for length, weight in pairs)


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
            return _normal(parts)
        if kind == "histogram":
            return _histogram(_pairs(rest))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(name, f"{text!r} ({error})", _MEND) from None
    except OSError as error:
        raise InputError(name, f"{text!r} ({error.strerror})", "name a file to read") from None
    raise InputError(name, f"{text!r} is no length", _MEND)


def _length(text: object) -> int:
    length = int(str(text))  # 128.7 and True are no lengths
    if not 1 <= length <= _LONGEST:
        raise ValueError(f"{length} is no length in tokens")
    return length


def _uniform(ratio: float, length: int) -> Uniform:
    if not 0 < ratio <= 1:
        raise ValueError(f"the ratio {ratio:g} is not above 0 and at most 1")
    return Uniform(ratio, length)


def _normal(texts: list[str]) -> Normal:
    mean, deviation = float(texts[0]), float(texts[1])
    if not (1 <= mean <= _LONGEST and 0 < deviation < _LONGEST):
        raise ValueError("mean and standard deviation are not positive")
    if texts[2:]:
        minimum, maximum = _length(texts[2]), _length(texts[3])
    else:
        # Without a tail of tiny prompts, of which there are too few distinct ones.
        minimum = max(1, math.floor(mean - _CUT * deviation))
        maximum = min(_LONGEST, math.ceil(mean + _CUT * deviation))
    if minimum > maximum:
        raise ValueError(f"{minimum} to {maximum} holds no length")
    if minimum > mean + 3 * deviation or maximum < mean - 3 * deviation:
        raise ValueError(f"{minimum} to {maximum} is far from the mean")
    return Normal(mean, deviation, minimum, maximum)


def _pairs(text: str) -> list[tuple[int, float]]:
    if text.startswith("@"):
        found: Any = json.loads(Path(text[1:]).read_text())
        pairs = list(found.items()) if isinstance(found, dict) else found
    else:
        pairs = [each.split("=") for each in text.split(",")]
    if not isinstance(pairs, list) or not all(
        isinstance(each, list | tuple) and len(each) == 2 for each in pairs
    ):
        raise ValueError("not every length has one weight")
    return [(_length(length), float(weight)) for length, weight in pairs]


def _histogram(pairs: list[tuple[int, float]]) -> Histogram:
    weights = [weight for _, weight in pairs]
    if not all(weight >= 0 for weight in weights) or not 0 < sum(weights) < math.inf:
        raise ValueError("weights are negative, or all 0")
    if len({length for length, _ in pairs}) < len(pairs):
        raise ValueError("a length is named twice")
    drawn = [(length, weight) for length, weight in pairs if weight > 0]
    return Histogram(tuple(length for length, _ in drawn), tuple(weight for _, weight in drawn))


def _plain(value: float) -> str:
    """Return a number without loss, and without a fraction that is none."""
    return str(int(value)) if value == int(value) else repr(value)
