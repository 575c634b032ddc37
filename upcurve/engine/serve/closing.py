"""Processes that end with the block that holds them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self


class Closing(ABC):
    """A context manager that closes itself when its context is left."""

    @abstractmethod
    def close(self) -> None:
        """End all that is held; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def join(processes: Iterable[BaseProcess], seconds: float) -> None:
    """Wait until processes end, together for so many seconds at most; then kill them."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
