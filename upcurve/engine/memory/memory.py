"""Who owns which KV page and which state slot; the tensors behind them are in `caches`."""

from __future__ import annotations

from dataclasses import dataclass

from upcurve.engine.memory.reservation import Reservation

PADDING_PAGE = 0
"""Belongs to nobody: unused places of a page table and rows that only pad a step point there."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of the memory is owned."""

    pages: int
    total_pages: int
    slots: int
    total_slots: int


class Memory:
    """Hands out pages 1..total_pages and slots 0..max_running_requests-1 as owned reservations.

    A page number or slot number means the same place in every layer. Nothing here waits for the
    device or is waited for: what a released page is used for next is computed after what it was
    used for before, because steps run in order.
    """

    def __init__(self, *, max_running_requests: int, token_capacity: int, page_size: int) -> None:
        self.page_size = page_size
        self._total_pages = -(-token_capacity // page_size)
        self._total_slots = max_running_requests
        # Lowest first, so that the same requests get the same places on every run.
        self._free_pages = list(range(self._total_pages, 0, -1))
        self._free_slots = list(range(max_running_requests - 1, -1, -1))
        self._owned: dict[int, Reservation] = {}

    def fits(self, tokens: int) -> bool:
        """Return whether a request of that many tokens could ever be computed."""
        return self._pages_for(tokens) <= self._total_pages

    def reserve(self, tokens: int, spare: int = 0) -> Reservation | None:
        """Hand out a slot and pages for `tokens` tokens; None if they are not free now.

        Args:
            tokens: one page at least is handed out.
            spare: pages that have to stay free beside them.
        """
        count = self._pages_for(tokens)
        if not self._free_slots or count + spare > len(self._free_pages):
            return None
        pages = self.take(count)
        assert pages is not None
        reservation = Reservation(pages, self._free_slots.pop(), self.page_size, self)
        self._owned[reservation.slot] = reservation
        return reservation

    def take(self, pages: int) -> list[int] | None:
        """Hand out pages, or None if so many are not free now; for reservations that grow."""
        if pages > len(self._free_pages):
            return None
        return [self._free_pages.pop() for _ in range(pages)]

    def take_back(self, reservation: Reservation) -> None:
        """Own a reservation's pages and slot again; called by the reservation."""
        del self._owned[reservation.slot]
        self._free_pages.extend(reversed(reservation.pages))
        self._free_slots.append(reservation.slot)

    def usage(self) -> Usage:
        """Return what is owned and what there is."""
        return Usage(
            self._total_pages - len(self._free_pages),
            self._total_pages,
            self._total_slots - len(self._free_slots),
            self._total_slots,
        )

    def check(self) -> None:
        """Prove that every page and slot is either free or owned by exactly one reservation.

        Raises:
            RuntimeError: something leaks or is shared.
        """
        pages = self._free_pages + [page for held in self._owned.values() for page in held.pages]
        slots = self._free_slots + [held.slot for held in self._owned.values()]
        if sorted(pages) != list(range(1, self._total_pages + 1)):
            raise RuntimeError("a KV page leaks or is shared")
        if sorted(slots) != list(range(self._total_slots)):
            raise RuntimeError("a state slot leaks or is shared")

    def _pages_for(self, tokens: int) -> int:
        return max(1, -(-tokens // self.page_size))
