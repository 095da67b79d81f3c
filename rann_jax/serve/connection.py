"""How many connections there may be, and for how long one may stay without a request."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 64  # (ours) of all clients; beyond them uvicorn answers 503
OF_A_CLIENT = 16  # (ours) browsers open six
SILENT_SECONDS = 10.0  # (ours) until the whole head of the next request; uvicorn itself ends pauses of 5 s


class Connection(H11Protocol):
    """uvicorn's, closed at once where its client has OF_A_CLIENT of them, and later where it asks nothing.

    So one client cannot keep out the others. Of a trusted proxy, which stands for many clients, any number
    is taken.
    """

    @property
    def address(self) -> str:
        """The client's."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or close it."""
        super().connection_made(transport)
        others = (other for other in self.connections if isinstance(other, Connection))
        own = sum(other.address == self.address for other in others)
        if own > OF_A_CLIENT and self.address not in self.config.forwarded_allow_ips:
            transport.abort()
            return
        self.loop.call_later(SILENT_SECONDS, self._check_asked, None)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        answered = self.cycle
        super().on_response_complete()
        self.loop.call_later(SILENT_SECONDS, self._check_asked, answered)

    def _check_asked(self, answered: object) -> None:
        """Close it where no request has begun since; uvicorn does, but where the next is sent in part."""
        if self.cycle is answered and (answered is None or self.conn.trailing_data[0]):
            self.transport.abort()
