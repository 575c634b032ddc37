"""What an engine's part in serving is told, by threads of connections and ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

News = TypeVar("News")


class Inbox(Generic[News]):
    """Takes news on any thread, for the engine's to attend to."""

    def __init__(self) -> None:
        self.on_news: Callable[[], None] = lambda: None
        self._news: deque[News] = deque()

    def tell(self, news: News) -> None:
        """Hear news, on any thread."""
        self._news.append(news)
        self.on_news()

    @property
    def has_news(self) -> bool:
        """Whether there is anything to attend to."""
        return bool(self._news)
