"""A page to try a trained model, or several: drop or record a sound.

It shows the spectrogram, what is heard over time, the tags and, of several workdirs, the fusion with its
conflict. The same as JSON:

  curl --data-binary @dog.ogg 'http://127.0.0.1:8000/api/tag?top=5'
  curl http://127.0.0.1:8000/api/model

It listens on this machine alone unless --host says otherwise. It keeps no sound and asks for no password:
what it refuses is bounded by the limits below, so put a proxy that knows your users before it. A client is
an address; behind a proxy all have the proxy's, unless --proxy says where it is: then the last address in
its header X-Forwarded-For counts, which that proxy must add itself. A proxy on this machine has to ask by
a name of this machine (Host: 127.0.0.1), not by its own.
"""

import argparse
import ipaddress
import math
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rann_jax import compilation_cache, fusion
from rann_jax.errors import ConfigError
from rann_jax.program import guarded, require
from rann_jax.tagger_ensemble import DEFAULT_RULE, load

LOCAL = ("127.0.0.1", "localhost", "[::1]")  # what this machine calls itself


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rann_jax.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("workdirs", metavar="WORKDIR", type=Path, nargs="+", help="folder of a trained model")
    add("--rule", choices=tuple(fusion.RULES), help=f"how several are fused (default: {DEFAULT_RULE})")
    add("--checkpoint", choices=("latest", "best"), default="latest", help="default: %(default)s")
    add("--host", default=LOCAL[0], help="address to listen on (default: %(default)s, this machine alone)")
    add("--port", type=int, default=8000, help="default: %(default)s; 0 takes a free one")
    add("--batch-size", type=int, metavar="N", help="windows at a time (default: 16, on a CPU 4)")
    add("--max-megabytes", type=float, default=64, metavar="MB", help="of an upload (default: %(default)s)")
    add("--max-seconds", type=float, default=600, metavar="S", help="of sound (default: %(default)s)")
    add("--per-minute", type=int, default=60, metavar="N", help="requests of a client (default: %(default)s)")
    add("--proxy", metavar="ADDRESS", help="whose X-Forwarded-For is believed (default: nobody's)")
    return parser


def listen(host: str, port: int) -> socket.socket:
    """The socket of the server.

    Raises:
      ConfigError: the address is taken or not this machine's.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port={port}: it must be in 0..65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"--host={host} --port={port}: {error}: name others") from error


def in_url(host: str) -> str:
    """A host as URLs and the header Host have it: an IPv6 address in brackets.

    >>> in_url("::1")
    '[::1]'
    """
    return f"[{host}]" if ":" in host else host


def names_of(host: str, address: str) -> list[str]:
    """By which names the server may be called that listens on `address`, which was called `host`.

    They are known where this machine alone can reach it: there a name of another site that was made to lead
    here (DNS rebinding) is refused. Elsewhere any name will do.

    >>> names_of("127.0.0.2", "127.0.0.2")
    ['127.0.0.1', 'localhost', '[::1]', '127.0.0.2']
    >>> names_of("0.0.0.0", "0.0.0.0")
    ['*']
    """
    if not ipaddress.ip_address(address).is_loopback:
        return ["*"]
    return list(dict.fromkeys([*LOCAL, in_url(host)]))


def check_limits(options: argparse.Namespace) -> None:
    """Raise ConfigError unless every limit is a positive number."""
    numbers = (options.max_megabytes, options.max_seconds, options.per_minute)
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ConfigError("--max-megabytes, --max-seconds and --per-minute must be positive and finite")


def trusted(proxy: str | None) -> list[str]:
    """The addresses whose X-Forwarded-For is believed: the proxy's, or none.

    Raises:
      ConfigError: it is no address.

    >>> trusted("::0001"), trusted(None)
    (['::1'], [])
    """
    try:
        return [] if proxy is None else [str(ipaddress.ip_address(proxy))]
    except ValueError as error:
        raise ConfigError(f"--proxy={proxy}: it must be an address, as 127.0.0.1") from error


def run(options: argparse.Namespace) -> int:
    """What the command line does, until it is interrupted.

    Raises:
      ConfigError: what the user can mend, in one line.
    """
    for package in ("fastapi", "uvicorn"):
        require(package, for_what="the page", extra="serve")
    import uvicorn

    from rann_jax.serve.app import create_app
    from rann_jax.serve.connection import CONNECTIONS, Connection
    from rann_jax.serve.limits import Limits

    check_limits(options)
    proxies = trusted(options.proxy)
    limits = Limits(
        bytes=int(options.max_megabytes * 1e6),
        seconds=options.max_seconds,
        per_minute=options.per_minute,
    )
    compilation_cache.enable()
    listener = load(options.workdirs, options.rule, options.checkpoint, options.batch_size)
    names = [path.resolve().name for path in options.workdirs]
    if len(set(names)) < len(names):
        names = [str(path) for path in options.workdirs]
    about = {"models": names, "rule": (options.rule or DEFAULT_RULE) if len(names) > 1 else None}
    sock = listen(options.host, options.port)
    address, port = sock.getsockname()[:2]
    app = create_app(listener, about, limits, hosts=names_of(options.host, address))
    print(f"http://{in_url(options.host)}:{port}", flush=True)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",  # as one of those a connection would no longer be counted
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        limit_concurrency=CONNECTIONS,
        log_config=None,
        log_level="warning",
        access_log=False,
    )
    with suppress(KeyboardInterrupt):  # which is how a server is stopped
        uvicorn.Server(config).run(sockets=[sock])
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
