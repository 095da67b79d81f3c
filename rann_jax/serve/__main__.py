"""Serve a web page to try one or several trained models: drop a sound on it or record one.

The page shows the spectrogram, the classes over time, the tags and, for several workdirs, the fusion with its
conflict. The same is available as JSON:

  curl --data-binary @dog.ogg 'http://127.0.0.1:8000/api/tag?top=5'
  curl http://127.0.0.1:8000/api/model

/api/tag takes top (the number of classes, 1 to 100), hop (seconds between windows) and spectrogram (true or
false). The tags are the classes of the highest mean over all windows. timeline.labels are the classes with
the most probable single windows, so that a short event is shown too, even if it is not among the tags.
The number of windows is limited to that of a sound of --max-seconds at the default hop of half a window, so
with a finer hop only shorter sounds are accepted.

The server listens on this machine only, unless --host says otherwise. It stores no sound and asks for no
password; it protects itself only by the limits below, so put a proxy that authenticates your users in front
of it. Sounds are processed one at a time. At most four may wait or be processed, two of them from one client;
others get status 503. A connection is closed after ten seconds in which its client begins no new request,
or reads no more of an answer. An upload may take a minute. Ctrl-C or SIGTERM stops the server; what is not
finished five seconds later is answered with status 503.

Clients are told apart by IPv4 address or IPv6 network (/64). Behind a proxy all clients have the proxy's
address, unless --proxy gives it: then the last address in the header X-Forwarded-For counts, which that proxy
must add itself. In its requests, a proxy on this machine must use a name of this machine (Host: 127.0.0.1),
not its own.
"""

import argparse
import ipaddress
import math
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded, require
from rann_jax.devices import compilation_cache
from rann_jax.errors import ConfigError
from rann_jax.tagging.tagger_ensemble import DEFAULT_RULE, add_model_options, load

STOP_SECONDS = 5  # (ours) that requests have to end by themselves when the server stops
LOCAL = ("127.0.0.1", "localhost", "[::1]")  # names of this machine for itself


def _parser() -> Parser:
    parser = Parser("rann_jax.serve", __doc__)
    add = parser.add_argument
    add("workdirs", metavar="WORKDIR", type=Path, nargs="+", help="workdir of a trained model")
    add_model_options(parser)
    add("--host", default=LOCAL[0], help="address to listen on (default: %(default)s, this machine only)")
    add(
        "--port", type=int, default=8000, help="port to listen on; 0 for any free port (default: %(default)s)"
    )
    add("--max-megabytes", type=float, default=64, metavar="MB", help="largest upload (default: %(default)s)")
    add(
        "--max-seconds",
        type=float,
        default=600,
        metavar="S",
        help="longest sound in an upload (default: %(default)s)",
    )
    add(
        "--per-minute",
        type=int,
        default=60,
        metavar="N",
        help="requests a minute per client (default: %(default)s)",
    )
    add("--proxy", metavar="ADDRESS", help="proxy whose X-Forwarded-For is trusted (default: none)")
    return parser


def listen(host: str, port: int) -> socket.socket:
    """Return the socket of the server.

    Raises:
      ConfigError: the address is in use or does not belong to this machine.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port={port}: it must be between 0 and 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"--host={host} --port={port}: {error}: use another host or port") from error


def in_url(host: str) -> str:
    """Return a host as written in URLs and the header Host: an IPv6 address in brackets.

    >>> in_url("::1")
    '[::1]'
    """
    return f"[{host}]" if ":" in host else host


def names_of(host: str, address: str) -> list[str]:
    """Return the names that requests may use for a server on `address`, given as `host`.

    They are known if only this machine can reach the server. Then the name of another site that was made to
    lead here (DNS rebinding) is refused. Otherwise any name is accepted.

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
    """Return the addresses whose X-Forwarded-For is trusted: the proxy's, or none.

    Raises:
      ConfigError: `proxy` is not an address.

    >>> trusted("::0001"), trusted(None)
    (['::1'], [])
    """
    try:
        return [] if proxy is None else [str(ipaddress.ip_address(proxy))]
    except ValueError as error:
        raise ConfigError(f"--proxy={proxy}: it must be an IP address, such as 127.0.0.1") from error


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted, as the command line says; return the exit code.

    Raises:
      ConfigError: an error that the user can fix, in one line.
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
    listener = load(options.workdirs, options.rule, options.weights, options.checkpoint, options.batch_size)
    names = [path.resolve().name for path in options.workdirs]
    if len(set(names)) < len(names):
        names = [str(path) for path in options.workdirs]
    about = {
        "models": names,
        "rule": (options.rule or DEFAULT_RULE) if len(names) > 1 else None,
        "weights": getattr(listener, "weights", None),
    }
    sock = listen(options.host, options.port)
    address, port = sock.getsockname()[:2]
    app = create_app(listener, about, limits, hosts=names_of(options.host, address))
    print(f"http://{in_url(options.host)}:{port}", flush=True)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",  # a connection that becomes a WebSocket would no longer be counted
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=None,
        log_level="warning",
        access_log=False,
    )
    with suppress(KeyboardInterrupt):  # the normal way to stop a server
        uvicorn.Server(config).run(sockets=[sock])
    if app.state.server.busy:  # Python would wait for the end of the computation
        sys.stdout.flush()
        os._exit(0)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return the exit code."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
