"""An HTTP connection whose streamed answer is written without waking a task for every token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "upcurve.connection"
"""Where the ASGI scope has the connection."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which a running answer may write to.

    An answer that was begun over ASGI, without a content length, may add to its body by
    `write_chunk`, in between its ASGI messages.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writable = True
        """Whether the reader keeps up: the transport's buffer is below its limit."""
        self.on_writable: Callable[[], None] = lambda: None
        """Called when a slow reader has caught up."""

    def on_message_begin(self) -> None:
        """Hand the connection to the application; part of uvicorn's parser interface."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"connection": self}}

    def write_chunk(self, data: bytes) -> None:
        """Write one chunk of HTTP/1.1's chunked encoding (RFC 9112, section 7.1); not empty."""
        if not self.transport.is_closing():
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def pause_writing(self) -> None:
        """Hold answers back; part of the transport's interface."""
        super().pause_writing()
        self.writable = False

    def resume_writing(self) -> None:
        """Go on after `pause_writing`; part of the transport's interface."""
        super().resume_writing()
        self.writable = True
        self.on_writable()
