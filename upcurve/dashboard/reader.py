"""A store as the dashboard reads it: its catalogue, and answers kept while it stays the same."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from upcurve.closing import Closing
from upcurve.dashboard.catalogue import Catalogue
from upcurve.errors import InputError
from upcurve.records.browse import store_version
from upcurve.records.store import Store

KEPT_BYTES = 64 * 2**20
"""Of answers that are kept: some hundred charts."""
REMEMBERED = 4000
"""Parts of answers that are kept: lines of charts, rows of overviews, each a few kB."""
LOOK_S = 0.05
"""Between two looks whether somebody waits."""

T = TypeVar("T")


class NotFoundError(InputError):
    """There is no such run or point."""


class Reader(Closing):
    """A store with its catalogue. Several threads may ask at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._catalogue: Catalogue | None = None
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._parts: OrderedDict[Hashable, Any] = OrderedDict()
        self._asking = 0
        self._answered_s = -math.inf

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def version(self) -> str:
        """Return the version of the store's content, now."""
        return store_version(self.store)

    def catalogue(self) -> Catalogue:
        """Return what the store holds, read anew where it has changed."""
        version = self.version()
        with self._lock:
            if self._catalogue is None or self._catalogue.version != version:
                self._catalogue = Catalogue.read(self.store, version)
            return self._catalogue

    def kept(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the answer of a key, made once while it is asked for again and again.

        Args:
            key: what the answer depends on, the version of the store included.
            make: how it is made.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            if key not in self._kept and len(made) < KEPT_BYTES // 4:
                self._kept[key] = made
                self._bytes += len(made)
                while self._bytes > KEPT_BYTES:
                    _, dropped = self._kept.popitem(last=False)
                    self._bytes -= len(dropped)
        return made

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return a part of answers, made once while what it depends on stays the same.

        Args:
            key: what it depends on: the state of one group, say, and not of the whole store.
            make: how it is made; what it returns must not be changed.
        """
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
                found: T = self._parts[key]
                return found
        made = make()
        with self._lock:
            self._parts[key] = made
            if len(self._parts) > REMEMBERED:
                self._parts.popitem(last=False)
        return made

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Know, for the length of the block, that somebody waits for an answer."""
        with self._lock:
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1
                self._answered_s = time.monotonic()

    def wait_until_quiet(self, seconds: float) -> None:
        """Return once nobody has waited for an answer for so long."""
        while self._asking or time.monotonic() - self._answered_s < seconds:
            time.sleep(LOOK_S)
