"""What one request owns of the memory: pages for its tokens and one state slot."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Reservation:
    """An owned handle, released exactly once."""

    def __init__(
        self,
        pages: list[int],
        slot: int,
        page_size: int,
        device: torch.device,
        give_back: Callable[[Reservation], None],
    ) -> None:
        self.pages = pages
        self.slot = slot
        self.capacity = len(pages) * page_size
        """Tokens that fit."""
        self.page_table = torch.tensor(pages, dtype=torch.int64, device=device)
        """int64 [pages]: page of tokens [i * page_size, (i + 1) * page_size)."""
        self._give_back: Callable[[Reservation], None] | None = give_back

    @property
    def released(self) -> bool:
        """Whether the handle has given its memory back."""
        return self._give_back is None

    def release(self) -> None:
        """Give the memory back.

        Raises:
            RuntimeError: it was given back before.
        """
        if self._give_back is None:
            raise RuntimeError(f"the memory of slot {self.slot} was released twice")
        give_back, self._give_back = self._give_back, None
        give_back(self)
