"""What a decode rank says of itself, read by several threads that have never read one."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from tests.engine.transfer.described import described
from tests.engine.transfer.processes import process
from upcurve.engine.parallel.mapping import Export
from upcurve.engine.transfer.description import Description
from upcurve.engine.transfer.offer import Exports, Offer
from upcurve.engine.transfer.reach import Place, Reach

EXPORT = Export("int64", (2, 3), memory=(1, 2, 48))
PLACE = Place(4096, (2, 3), (24, 8))
OFFER = Offer(
    *("127.0.0.1", 9000, 1, "cpu", 40, 3),
    Exports("here", EXPORT, EXPORT, EXPORT, EXPORT, b"proof"),
    Reach("agent", b"metadata", "here", 0, PLACE, PLACE, PLACE),
)
READERS = 4


class Reading:
    """A process in which nothing has been read yet."""

    def read(self, offer: bytes, description: bytes) -> list[tuple[Offer, Description]]:
        """Read both on several threads, which all begin at once."""
        begin = threading.Barrier(READERS)
        sys.setswitchinterval(1e-6)

        def run(_: int) -> tuple[Offer, Description]:
            begin.wait()
            return Offer.decode(offer), Description.decode(description)

        with ThreadPoolExecutor(READERS) as threads:
            return list(threads.map(run, range(READERS)))


def test_decode_workers_may_come_at_once() -> None:
    """Two that came to a prefill worker as its first ones have ended it: SIGSEGV."""
    for _ in range(4):
        with process(Reading) as reading:
            assert reading("read", OFFER.encode(), described().encode()) == (
                [(OFFER, described())] * READERS
            )


@pytest.mark.parametrize("data", [b"nonsense", b"", msgspec.msgpack.encode({"host": 1})])
def test_what_is_no_offer_is_an_error(data: bytes) -> None:
    with pytest.raises(OSError, match=r"^no offer of a decode rank: "):
        Offer.decode(data)
