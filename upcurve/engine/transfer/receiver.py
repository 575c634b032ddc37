"""The receiving end: a decode rank's caches, into which prefill ranks write."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from upcurve.engine.memory.caches import Caches
from upcurve.engine.parallel.acceptor import Acceptor
from upcurve.engine.parallel.mapping import export, host_identity
from upcurve.engine.transfer import frames
from upcurve.engine.transfer.connecting import CONNECT_SECONDS
from upcurve.engine.transfer.description import VERSION
from upcurve.engine.transfer.frames import BrokenFrameError, Frame
from upcurve.engine.transfer.incoming import CopyWatch, Incoming, NixlWatch, TcpWriter
from upcurve.engine.transfer.nixl import Registration
from upcurve.engine.transfer.offer import Exports, Offer, proof_of
from upcurve.engine.transfer.reach import Place, Reach
from upcurve.engine.transfer.transport import Transport
from upcurve.engine.transfer.views import CacheViews

logger = logging.getLogger(__name__)

CLAIM_SECONDS = 60.0
"""How long memory stays registered for somebody who was told of it and does not connect."""


class Receiver:
    """One decode rank's; listens until it is closed.

    Whatever arrives is written at once, beside the steps of this engine: a slot and pages may be
    named to a prefill worker only when every step that was launched while somebody else had them
    has been computed; and used for something else only when the transfer is reported as done or
    cancelled, or its session is expelled.
    """

    def __init__(
        self, caches: Caches, page_size: int, rank: int, host: str, transport: Transport = "auto"
    ) -> None:
        """Listen.

        Args:
            caches: of this rank. Where they can be mapped no step may be running yet: on the CPU
                they move into shared memory.
            page_size: tokens of a page.
            rank: among those that share the heads.
            host: address of this machine by which prefill workers reach it.
            transport: "copy" and, on a GPU, "auto" let processes of this host map the caches.

        Raises:
            OSError: the address is not this machine's.
        """
        self._views = CacheViews.of(caches.kv, caches.recurrent, caches.convolution)
        self._page_size = page_size
        self._rank = rank
        self._host = host
        self._proof_bytes = os.urandom(16)
        self._proof = proof_of(caches.kv.device, self._proof_bytes)
        shares = transport == "copy" or (transport == "auto" and caches.kv.device.type == "cuda")
        # Once: torch replaces the memory of a tensor that it exports by itself.
        self._exported = self._exports(caches) if shares else None
        self._registers = transport == "nixl"
        self._registrations: dict[str, Registration] = {}
        self._incoming: dict[str, set[Incoming]] = {}
        self._expelled: set[str] = set()
        self._lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family)
        self._port = listener.getsockname()[1]
        self._acceptor = Acceptor(listener, self._accept, "prefill worker")

    def offer(self) -> bytes:
        """Return how prefill ranks reach it; ask anew for each session."""
        views = self._views
        return Offer(
            self._host,
            self._port,
            self._rank,
            views.device.type,
            views.rows.shape[2],
            views.slots,
            self._exported,
            self._reach() if self._registers else None,
        ).encode()

    def expel(self, session: str, gone: Callable[[], None]) -> None:
        """End a session; `gone` is called once nothing of it will be written any more.

        That is at once where it only sends frames. A process that writes by itself has to say so or
        to end; while it is stopped `gone` is not called.
        """
        with self._lock:
            self._expelled.add(session)
            found = set(self._incoming.get(session, ()))
            waiting = set(found)

        def ended(incoming: Incoming) -> None:
            with self._lock:
                waiting.discard(incoming)
                last = not waiting
            if last:
                gone()

        if not found:
            gone()
        for each in found:
            each.on_end(lambda each=each: ended(each))  # type: ignore[misc]
            each.leave()

    def close(self) -> None:
        """Hear nothing more, and end all sessions."""
        self._acceptor.close()
        with self._lock:
            sessions = list(self._incoming)
            registrations = list(self._registrations.values())
            self._registrations.clear()
        for each in registrations:
            each.close()
        for session in sessions:
            self.expel(session, lambda: None)

    def _reach(self) -> Reach | None:
        try:
            made = Registration(self._views)
        except OSError as error:
            logger.warning("no NIXL into this rank: %s", error)
            return None
        with self._lock:
            late = [
                each
                for each in self._registrations.values()
                if not each.claimed and each.made < made.made - CLAIM_SECONDS
            ]
            for each in late:
                del self._registrations[each.name]
            self._registrations[made.name] = made
        for each in late:
            each.close()
        views = self._views
        places = map(Place.of, (views.rows, views.recurrent, views.convolution))
        return Reach(made.name, made.metadata, host_identity(), made.device, *places)

    def _exports(self, caches: Caches) -> Exports | None:
        host = host_identity()
        if not host:
            return None
        try:
            # Without it nobody can tell when a process that maps them has ended.
            os.close(os.pidfd_open(os.getpid()))
            return Exports(
                host,
                kv=export(caches.kv),
                recurrent=export(caches.recurrent),
                convolution=export(caches.convolution),
                proof=export(self._proof),
                proof_bytes=self._proof_bytes,
            )
        except (OSError, RuntimeError) as error:
            logger.warning("no device copies into this rank: %s", str(error).splitlines()[0])
            return None

    def _accept(self, connection: socket.socket, _: tuple[str, int]) -> None:
        threading.Thread(
            target=self._serve, args=(connection,), name="upcurve-incoming", daemon=True
        ).start()

    def _serve(self, connection: socket.socket) -> None:
        incoming: Incoming | None = None
        session, reason = "", ""
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hello = frames.receive(connection)
            if hello is None:
                return
            if hello.kind != frames.HELLO:
                raise BrokenFrameError("it does not begin with hello")
            session = hello.text
            incoming = self._admit(connection, hello)
            frames.send(connection, Frame(frames.DONE))
            connection.settimeout(None)
            incoming.run()
        except (BrokenFrameError, ValueError, IndexError) as error:
            reason = str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        finally:
            if reason:
                logger.warning("a transfer connection ends: %s", reason)
                with suppress(OSError):
                    frames.refuse(connection, reason, CONNECT_SECONDS)
            if incoming is not None:
                incoming.settle(broken=bool(reason))
                with self._lock:
                    self._registrations.pop(incoming.registration, None)
                    self._incoming[session].discard(incoming)
                    if not self._incoming[session]:
                        del self._incoming[session]
                incoming.ended()
            connection.close()

    def _admit(self, connection: socket.socket, hello: Frame) -> Incoming:
        """Return who handles a connection.

        Raises:
            BrokenFrameError: it may not write here.
        """
        if hello.count != VERSION:
            raise BrokenFrameError(f"protocol version {hello.count} there, {VERSION} here")
        if hello.slot != self._rank:
            raise BrokenFrameError(f"this is rank {self._rank}, not {hello.slot}")
        incoming: Incoming
        if hello.rows:
            with self._lock:
                found = self._registrations.get(hello.rows.decode(errors="replace"))
                if found is None:
                    raise BrokenFrameError("it writes to memory that was not named to it")
                found.claimed = True
            incoming = NixlWatch(connection, hello.begin, hello.layer, found)
        elif hello.begin:
            incoming = CopyWatch(connection, hello.begin)
        else:
            incoming = TcpWriter(connection, self._views, self._page_size)
        with self._lock:
            expelled = hello.text in self._expelled
            if not expelled:
                self._incoming.setdefault(hello.text, set()).add(incoming)
        if expelled:
            incoming.settle(broken=False)
            raise BrokenFrameError("its session has ended")
        return incoming
