"""What one request owns of the memory: pages for its tokens and one state slot."""

from __future__ import annotations

from typing import Protocol


class Owner(Protocol):
    """Who hands reservations out."""

    def take(self, pages: int) -> list[int] | None:
        """Hand out more pages, or None if so many are not free now."""

    def take_back(self, reservation: Reservation) -> None:
        """Own a reservation's pages and slot again."""


class Reservation:
    """An owned handle, which may grow, and is released exactly once."""

    __slots__ = ("_owner", "_page_size", "pages", "slot", "written")

    def __init__(self, pages: list[int], slot: int, page_size: int, owner: Owner) -> None:
        self.pages = pages
        """Page i holds the tokens [i * page_size, (i + 1) * page_size)."""
        self.slot = slot
        self.written = 0
        """How many of the pages the page table on the device knows already."""
        self._page_size = page_size
        self._owner: Owner | None = owner

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return len(self.pages) * self._page_size

    @property
    def released(self) -> bool:
        """Whether the handle has given its memory back."""
        return self._owner is None

    def grow(self, tokens: int) -> bool:
        """Make room for `tokens` tokens in all; False, and nothing taken, if it is not free now.

        Raises:
            RuntimeError: the handle has been released.
        """
        missing = tokens - self.capacity
        if missing <= 0:
            return True
        if self._owner is None:
            raise RuntimeError(f"the memory of slot {self.slot} is released and cannot grow")
        pages = self._owner.take(-(-missing // self._page_size))
        if pages is None:
            return False
        self.pages += pages
        return True

    def release(self) -> None:
        """Give the memory back.

        Raises:
            RuntimeError: it was given back before.
        """
        if self._owner is None:
            raise RuntimeError(f"the memory of slot {self.slot} was released twice")
        owner, self._owner = self._owner, None
        owner.take_back(self)
