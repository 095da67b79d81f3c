"""Limits on the number of connections, and on the time that one may stay silent."""

import asyncio
import math
from contextlib import suppress

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rann_jax.serve.limits import client_at

CONNECTIONS = 64  # (ours) of all clients together; beyond that uvicorn answers 503
OF_A_CLIENT = 16  # (ours) of one client; browsers open six
# (ours) until the next request's head is complete, or more of an answer is read; uvicorn ends pauses of 5 s
# between requests
SILENT_SECONDS = 10.0


class Connection(H11Protocol):
    """uvicorn's connection, closed at once if its client has OF_A_CLIENT others, or later if it is silent.

    It is silent if it does not ask, or does not read its answers. So one client cannot keep out the others. A
    trusted proxy, which stands for many clients, may have any number of connections.
    """

    @property
    def client_name(self) -> str:
        """The client's name, or the address of a trusted proxy, which may be in the network of a client."""
        address = self.client[0] if self.client else ""
        return address if address in self.config.forwarded_allow_ips else client_at(address)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or close it."""
        super().connection_made(transport)
        others = (other for other in self.connections if isinstance(other, Connection))
        own = sum(other.client_name == self.client_name for other in others)
        if own > OF_A_CLIENT and self.client_name not in self.config.forwarded_allow_ips:
            transport.abort()
            return
        self.loop.call_later(SILENT_SECONDS, self._check_asked, None)
        # With this limit, writing is paused from the first byte that the network does not take until all are
        # taken.
        transport.set_write_buffer_limits(high=0)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP. If it is in a request's body, the handler is told that the client left."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        with suppress(h11.LocalProtocolError):  # it was answered before its body was read, or is a HEAD
            super().send_400_response(msg)
        self.transport.close()

    def pause_writing(self) -> None:
        """Limit the wait for the client to read on. All of uvicorn's limits begin when it has read all."""
        super().pause_writing()
        self._check_read(math.inf)

    def resume_writing(self) -> None:
        """End the limit."""
        super().resume_writing()
        self._read_check.cancel()

    def _check_read(self, left: float) -> None:
        """Close it if the client has read nothing since the last check, when `left` bytes were unread."""
        now_left = self.transport.get_write_buffer_size()
        if now_left >= left:
            self.transport.abort()
        else:
            self._read_check = self.loop.call_later(SILENT_SECONDS, self._check_read, now_left)

    def on_response_complete(self) -> None:
        """Limit the wait for the next request."""
        answered = self.cycle
        super().on_response_complete()
        self.loop.call_later(SILENT_SECONDS, self._check_asked, answered)

    def _check_asked(self, answered: object) -> None:
        """Close it if no request has begun since; uvicorn does that unless the next was sent in part."""
        if self.cycle is answered and (answered is None or self.conn.trailing_data[0]):
            self.transport.abort()
