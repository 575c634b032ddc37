"""What the engine asks of whatever computes its steps: a GPU, a CPU, or a stand-in for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from upcurve.engine.execute.event import TokenLogprobs
from upcurve.engine.schedule.request import Request
from upcurve.engine.schedule.scheduler import Scheduled

NO_TOKEN = -1
"""Drawn where no token is the most likely one: the logits are not finite."""


class DeviceLostError(RuntimeError):
    """The device computes no more: other ranks wait for what it could not do, or are gone."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The tokens that one step drew, in the order of its entries that draw."""

    tokens: Sequence[int]
    logprobs: Sequence[TokenLogprobs | None]


class Flight(Protocol):
    """A step on its way."""

    def wait(self) -> Drawn:
        """Wait until it is computed.

        Raises:
            Exception: whatever went wrong on the device.
        """


class Device(Protocol):
    """Computes steps in the order in which they are launched."""

    @property
    def asynchronous(self) -> bool:
        """Whether `launch` returns before the step is computed."""

    def launch(self, step: Sequence[Scheduled]) -> Flight:
        """Begin to compute a step; tokens of earlier ones that it needs are on the device.

        Raises:
            DeviceLostError: no step can be computed any more.
            Exception: this one cannot.
        """

    def check(self, requests: Sequence[Request]) -> None:
        """Prove that what the device keeps for running requests is theirs, or raise."""
