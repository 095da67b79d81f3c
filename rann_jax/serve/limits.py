"""Limits on what a client may ask of the server: how much, how long, how often."""

import asyncio
import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

CLIENTS = 1024  # clients whose rate is remembered; the least recently active is forgotten first


@dataclass(frozen=True)
class Limits:
    """Limits of the server (all ours). Its memory is about twice `waiting` uploads and one sound in process.

    Attributes:
      bytes: largest size of an upload.
      seconds: longest sound in an upload, whatever its header says. No sound may have more windows than this
        one has at the default hop, so that a fine hop is no way to ask for more work.
      per_minute: requests per minute of one client.
      waiting: number of sounds that may wait or be processed at a time. It also limits the simultaneous
        uploads of one client, and the total size of all unfinished uploads, in uploads of full size.
      waiting_of_a_client: how many of these may come from one client.
      upload_seconds: longest duration of an upload.
    """

    bytes: int = 64_000_000
    seconds: float = 600.0
    per_minute: int = 60
    waiting: int = 4
    waiting_of_a_client: int = 2
    upload_seconds: float = 60.0


class Refusal(Exception):
    """A request that is not served: an HTTP status, the reason, and when to try again."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}


class RequestRate:
    """A token bucket for each client; a full one holds a minute's requests, and it fills evenly.

    >>> rate = RequestRate(2, clock=lambda: 0.0)
    >>> [rate.wait("a"), rate.wait("a"), rate.wait("a"), rate.wait("b")]
    [0.0, 0.0, 30.0, 0.0]
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic):
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when

    def wait(self, client: str) -> float:
        """Take a token and return 0.0, or return the seconds until there is one."""
        now = self._clock()
        tokens, then = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - then) * self._per_minute / 60)
        missing = max(0.0, 1 - tokens)
        self._buckets[client] = (tokens if missing else tokens - 1, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return missing * 60 / self._per_minute


def client_at(address: str) -> str:
    """Return the name of the client at an address, for the limits per client.

    It is the IPv4 address, or the network of 64 bits of an IPv6 address: one machine may use any address of
    its network (RFC 4862).

    >>> client_at("192.0.2.1"), client_at("::ffff:192.0.2.1"), client_at("2001:db8::1:2")
    ('192.0.2.1', '192.0.2.1', '2001:db8::/64')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a proxy may write any text
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))


def client_of(request: Request) -> str:
    """Return the name of the client that sent a request."""
    return client_at(request.client.host) if request.client else ""


class Uploads:
    """The bodies being uploaded, limited in total and per client, so that none can keep out the others.

    Args:
      limits: one client may have at most `waiting` uploads at a time, together no larger than `bytes`; the
        uploads of all clients together are no larger than `waiting` times `bytes`.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._count: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    async def read(self, request: Request) -> bytes:
        """Return the body of a request, reading no more than allowed; its header is not trusted.

        Raises:
          Refusal: the upload is too large, too slow or breaks off, or there are too many others.
        """
        limits, client, body = self._limits, client_of(request), bytearray()
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limits.bytes):
            raise self._too_large()
        if self._count[client] >= limits.waiting:
            raise Refusal(503, f"{limits.waiting} of your uploads are still running: try again", 1)
        self._count[client] += 1
        try:
            async with asyncio.timeout(limits.upload_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._bytes[client] += len(chunk)
                    self._check(client, len(body))
        except TimeoutError as error:
            raise Refusal(408, f"the upload took longer than {limits.upload_seconds:g} s") from error
        except ClientDisconnect as error:
            raise Refusal(400, "the upload broke off") from error
        finally:
            self._bytes[client] -= len(body)
            self._count[client] -= 1
            if not self._count[client]:
                del self._count[client], self._bytes[client]
        return bytes(body)

    def _check(self, client: str, size: int) -> None:
        """Raise Refusal if this upload, the client's uploads or those of all clients are too large."""
        if size > self._limits.bytes:
            raise self._too_large()
        if self._bytes[client] > self._limits.bytes:
            raise Refusal(503, "your other uploads are not finished: try again", 1)
        if self._bytes.total() > self._limits.waiting * self._limits.bytes:
            raise Refusal(503, "the server is receiving too much at once: try again", 1)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the upload is larger than {self._limits.bytes:,} bytes")
