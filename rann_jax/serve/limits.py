"""What a stranger may ask of the server: how much, how long, how often."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

CLIENTS = 1024  # whose rate is remembered; the one heard of least recently is forgotten first


@dataclass(frozen=True)
class Limits:
    """The server's bounds (all ours); its memory is about `waiting` uploads and one sound being heard.

    Attributes:
      bytes: of an upload.
      seconds: of sound in it, whatever its header says.
      per_minute: requests of one client.
      waiting: uploads that are taken or heard at the same time.
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


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request, no more of it than allowed; what its header says is not relied on.

    Raises:
      Refusal: it is too large, too slow, or breaks off.
    """
    too_large = Refusal(413, f"larger than {limits.bytes:,} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limits.bytes):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.bytes:
                    raise too_large
    except TimeoutError as error:
        raise Refusal(408, f"the upload lasted longer than {limits.upload_seconds:g} s") from error
    except ClientDisconnect as error:
        raise Refusal(400, "the upload broke off") from error
    return bytes(body)
