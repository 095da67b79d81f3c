"""What a stranger may ask of the server: how much, how long, how often."""

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

CLIENTS = 1024  # whose rate is remembered; the one heard of least recently is forgotten first


@dataclass(frozen=True)
class Limits:
    """The server's bounds (all ours); its memory is about twice `waiting` uploads and one sound being heard.

    Attributes:
      bytes: of an upload.
      seconds: of sound in it, whatever its header says.
      per_minute: requests of one client.
      waiting: sounds that wait or are heard at the same time; also uploads of one client that come at the
        same time, and whole uploads that those of all clients may amount to.
      upload_seconds: that an upload may last.
    """

    bytes: int = 64_000_000
    seconds: float = 600.0
    per_minute: int = 60
    waiting: int = 4
    upload_seconds: float = 60.0


class Refusal(Exception):
    """A request that is not served: an HTTP status, the reason, and when to come again."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}


class RequestRate:
    """A bucket of tokens for each client: full it holds a minute's requests, and it fills evenly.

    >>> rate = RequestRate(2, clock=lambda: 0.0)
    >>> [rate.wait("a"), rate.wait("a"), rate.wait("a"), rate.wait("b")]
    [0.0, 0.0, 30.0, 0.0]
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic):
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when

    def wait(self, client: str) -> float:
        """Take a token, and 0.0; or seconds until there is one."""
        now = self._clock()
        tokens, then = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - then) * self._per_minute / 60)
        missing = max(0.0, 1 - tokens)
        self._buckets[client] = (tokens if missing else tokens - 1, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return missing * 60 / self._per_minute


def client_of(request: Request) -> str:
    """The address of who asks."""
    return request.client.host if request.client else ""


class Uploads:
    """The bodies that are coming: bounded together, and so that one client cannot keep out the others.

    Args:
      limits: those of one client come at most `waiting` at a time, and together are no larger than one may
        be; those of all clients are no larger than `waiting` of them.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._count: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    async def read(self, request: Request) -> bytes:
        """The body of a request, no more of it than allowed; what its header says is not relied on.

        Raises:
          Refusal: it is too large, too slow, breaks off, or comes beside too much else.
        """
        limits, client, body = self._limits, client_of(request), bytearray()
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limits.bytes):
            raise self._too_large()
        if self._count[client] >= limits.waiting:
            raise Refusal(503, f"{limits.waiting} uploads of yours are coming already", 1)
        self._count[client] += 1
        try:
            async with asyncio.timeout(limits.upload_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._bytes[client] += len(chunk)
                    self._check(client, len(body))
        except TimeoutError as error:
            raise Refusal(408, f"the upload lasted longer than {limits.upload_seconds:g} s") from error
        except ClientDisconnect as error:
            raise Refusal(400, "the upload broke off") from error
        finally:
            self._bytes[client] -= len(body)
            self._count[client] -= 1
            if not self._count[client]:
                del self._count[client], self._bytes[client]
        return bytes(body)

    def _check(self, client: str, size: int) -> None:
        """Raise Refusal where this upload, the client's, or those of all clients are too large."""
        if size > self._limits.bytes:
            raise self._too_large()
        if self._bytes[client] > self._limits.bytes:
            raise Refusal(503, "your other uploads have not ended", 1)
        if self._bytes.total() > self._limits.waiting * self._limits.bytes:
            raise Refusal(503, "too much is being uploaded", 1)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"larger than {self._limits.bytes:,} bytes")
