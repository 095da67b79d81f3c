"""The server on the network: which addresses and host names it accepts, and how it identifies clients."""

import asyncio
import contextlib
import re
import socket
from pathlib import Path

import numpy as np
import pytest

from rann_jax.serve.__main__ import main

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from fastapi.testclient import TestClient  # noqa: E402 - after the skip
from uvicorn.protocols.utils import get_remote_addr  # noqa: E402

from rann_jax.serve import connection  # noqa: E402
from tests.fake_models import RATE, Loudness  # noqa: E402
from tests.serving import WHOLE, encoded  # noqa: E402


@pytest.mark.fast
def test_it_listens_on_this_machine_only(monkeypatch, capsys):
    """The command line starts a server with the expected address, names and limits."""
    started = {}
    monkeypatch.setattr(
        "rann_jax.serve.__main__.load", lambda *arguments: started.update(load=arguments) or Loudness()
    )

    def run(self, sockets):
        started.update(address=sockets[0].getsockname(), app=self.config.app)
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    assert main(["runs/a", "other/a", "--weights", "1,2", "--port", "0", "--max-seconds", "7"]) == 0
    assert started["load"] == ([Path("runs/a"), Path("other/a")], None, "1,2", "latest", None)
    host, port = started["address"]
    assert host == "127.0.0.1"
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}\n"
    http = TestClient(started["app"], base_url="http://localhost")
    about = http.get("/api/model").json()
    assert about["models"] == ["runs/a", "other/a"]  # the last part of the path would not tell them apart
    assert about["limits"] == {"bytes": 64_000_000, "seconds": 7, "windows": 139, "per_minute": 60}
    assert TestClient(started["app"], base_url="http://evil.example").get("/").status_code == 400


@pytest.fixture
def launched(monkeypatch):
    """A function that returns what the command line would run: uvicorn's configuration and the socket."""
    kept = []
    monkeypatch.setattr("rann_jax.serve.__main__.load", lambda *_: Loudness())
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: kept.append((self.config, *sockets)))

    def launch(*arguments: str) -> tuple[uvicorn.Config, socket.socket]:
        assert main(["runs/a", "--port", "0", *arguments]) == 0
        return kept[-1]

    yield launch
    for _, sock in kept:
        sock.close()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "statuses"),
    [
        ([], [200, 429, 429]),
        (["--proxy", "10.0.0.9"], [200, 429, 429]),
        (["--proxy", "127.0.0.1"], [200, 200, 429]),
    ],
    ids=["none", "another", "proxy"],
)
def test_only_the_proxy_may_state_a_client_address(arguments, statuses, launched):
    """The proxy itself wrote the last address in the header; its client may have made up the others."""
    config, _ = launched("--per-minute", "1", *arguments)
    config.load()
    http = TestClient(config.loaded_app, base_url="http://localhost", client=("127.0.0.1", 4000))
    headers = ({"X-Forwarded-For": f"9.9.9.{i}, 8.8.8.{i % 2}"} for i in range(3))
    assert [http.post("/api/tag", content=WHOLE, headers=h).status_code for h in headers] == statuses


@contextlib.asynccontextmanager
async def running(config: uvicorn.Config, sock: socket.socket):
    """Run the server; yield its connections, and a function that connects from an address of this machine."""
    async with contextlib.AsyncExitStack() as stack:
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([sock]))
        while not server.started:
            await asyncio.sleep(0.01)

        async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            streams = await asyncio.open_connection(*sock.getsockname(), local_addr=(address, 0))
            stack.callback(streams[1].close)
            return streams

        yield server.server_state.connections, connect
        server.should_exit = True
        stack.push_async_callback(asyncio.wait_for, task, 30)


async def heard(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> bytes:
    """Return the first line of the answer, or b"" if the server closes the connection."""
    reader, writer = streams
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        async with asyncio.timeout(30):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        return head.partition(b"\r\n")[0]
    return b""


ASKED, OK = b"GET /api/model HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200 OK"


@pytest.mark.fast
@pytest.mark.parametrize("proxy", [False, True])
def test_silent_connections_do_not_block_other_clients(proxy, launched):
    """The number of connections per client is limited, except for a proxy, which serves many clients."""
    config, sock = launched(*(["--proxy", "127.0.0.1"] if proxy else []))

    async def scene() -> list[bytes]:
        async with running(config, sock) as (_, connect):
            silent = [await connect("127.0.0.1") for _ in range(connection.OF_A_CLIENT)]
            answers = [await heard(await connect(address), ASKED) for address in ("127.0.0.1", "127.0.0.2")]
            return [*answers, await heard(silent[0], ASKED)]

    assert asyncio.run(scene()) == [OK if proxy else b"", OK, OK]


@pytest.mark.fast
@pytest.mark.parametrize("proxy", [False, True])
def test_connections_are_counted_by_ipv6_network(proxy, launched, monkeypatch):
    """Those of a proxy are not its neighbours'. A connection from 127.0.0.N is shown as one from host N."""
    networks = {"127.0.0.1": "2001:db8::1", "127.0.0.2": "2001:db8::2", "127.0.0.3": "2001:db8:0:1::3"}
    monkeypatch.setattr(
        "uvicorn.protocols.http.h11_impl.get_remote_addr",
        lambda transport: (networks[get_remote_addr(transport)[0]], 1),
    )
    config, sock = launched(*(["--proxy", "2001:db8::1"] if proxy else []))

    async def scene() -> list[bytes]:
        async with running(config, sock) as (_, connect):
            for _ in range(connection.OF_A_CLIENT):
                await connect("127.0.0.1")
            return [await heard(await connect(address), ASKED) for address in ("127.0.0.2", "127.0.0.3")]

    assert asyncio.run(scene()) == [OK if proxy else b"", OK]


@pytest.mark.fast
def test_silent_connections_are_closed(launched, monkeypatch):
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    config, sock = launched()

    async def scene() -> list[bytes]:
        async with running(config, sock) as (_, connect):
            asks = await connect("127.0.0.1")
            first = await heard(asks, ASKED)
            slow = await heard(await connect("127.0.0.1"), ASKED[:20])
            again = await heard(asks, ASKED)
            return [first, slow, again, await heard(asks, ASKED[:20])]

    assert asyncio.run(scene()) == [OK, b"", OK, b""]


BROKEN = b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"no chunk\r\n"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "seen", "status"),
    [
        (b"POST /nowhere HTTP/1.1\r\n", False, b"400 Bad Request"),
        (b"POST /nowhere HTTP/1.1\r\n", True, b"404 Not Found"),
        (b"POST /api/tag HTTP/1.1\r\n", False, b"400 Bad Request"),
        (b"HEAD / HTTP/1.1\r\n", False, b"400 Bad Request"),
    ],
    ids=["before-the-answer", "after-the-answer", "while-it-is-read", "head"],
)
def test_a_body_that_breaks_the_protocol_is_no_error_of_the_server(line, seen, status, launched, caplog):
    config, sock = launched()
    head, chunk = BROKEN

    async def scene() -> list[bytes]:
        async with running(config, sock) as (_, connect), asyncio.timeout(30):
            reader, writer = await connect("127.0.0.1")
            writer.write(line + head + (b"" if seen else chunk))
            first = await reader.readline()
            if seen:
                writer.write(chunk)
            await reader.read()  # until the server closes the connection
            return [first, await heard(await connect("127.0.0.1"), ASKED)]

    assert asyncio.run(scene()) == [b"HTTP/1.1 " + status + b"\r\n", OK]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def little_buffer(sock: socket.socket) -> None:
    """Let the network take only few bytes that nobody reads; connections inherit this from their listener."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 4096)


PAGE = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.fast
@pytest.mark.parametrize("number", [1, 200])
def test_connections_that_do_not_read_their_answers_are_closed(number, launched, monkeypatch):
    """Also those that have only a rest of an answer to read, which uvicorn waits for when it closes them."""
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    config, sock = launched()
    config.timeout_keep_alive = 0.1
    little_buffer(sock)

    async def scene() -> int:
        async with running(config, sock) as (connections, connect), asyncio.timeout(20):
            _, writer = await connect("127.0.0.1")
            little_buffer(writer.get_extra_info("socket"))
            writer.transport.pause_reading()
            writer.write(number * PAGE)
            while not (serving := list(connections)):
                await asyncio.sleep(0.01)
            while not (left := serving[0].transport.get_write_buffer_size()):
                await asyncio.sleep(0.01)
                writer.write(number * PAGE)
            while connections:
                await asyncio.sleep(0.01)
            return left

    assert 0 < asyncio.run(scene()) < 1 << 16  # above this asyncio by itself tells uvicorn to pause


@pytest.mark.fast
def test_a_client_that_has_read_all_may_rest(launched, monkeypatch):
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.1)
    config, sock = launched()

    async def scene() -> list[bytes]:
        async with running(config, sock) as (connections, connect):
            asks = await connect("127.0.0.1")
            first = await heard(asks, ASKED)
            (served,) = connections
            served.pause_writing()
            served.resume_writing()
            await asyncio.sleep(0.3)
            return [first, await heard(asks, ASKED)]

    assert asyncio.run(scene()) == [OK, OK]


@pytest.mark.fast
def test_slow_readers_are_served(launched, monkeypatch):
    """An answer may take any time if the client keeps reading it."""
    monkeypatch.setattr(connection, "SILENT_SECONDS", 1.0)
    config, sock = launched()
    little_buffer(sock)
    sound = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, 30 * RATE))
    asked = ("POST /api/tag?spectrogram=true HTTP/1.1", "Host: localhost", f"Content-Length: {len(sound)}")

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            little_buffer(client)
            async with running(config, sock), asyncio.timeout(60):
                await loop.sock_connect(client, sock.getsockname())
                await loop.sock_sendall(client, "\r\n".join((*asked, "", "")).encode() + sound)
                heard = await loop.sock_recv(client, 4096)
                begun = loop.time()
                header, _, body = heard.partition(b"\r\n\r\n")
                left = int(re.search(rb"content-length: (\d+)", header)[1]) - len(body)
                while left:
                    await asyncio.sleep(0.05)
                    part = await loop.sock_recv(client, 4096)
                    assert part, f"{left} bytes are missing after {loop.time() - begun:.1f} s"
                    left -= len(part)
                assert loop.time() - begun > 2 * connection.SILENT_SECONDS

    asyncio.run(scene())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("host", "shown", "rebound"),
    [
        ("127.0.0.2", "127.0.0.2", 400),
        ("127.1", "127.1", 400),
        ("::1", "[::1]", 400),
        ("localhost", "localhost", 400),
        ("0.0.0.0", "0.0.0.0", 200),
    ],
)
def test_names_of_other_sites_are_refused_on_loopback_addresses(host, shown, rebound, monkeypatch, capsys):
    """DNS rebinding can point another site's name at this server; on loopback no such name is accepted."""
    apps = []
    monkeypatch.setattr("rann_jax.serve.__main__.load", lambda *_: Loudness())
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: apps.append((self.config.app, sockets)))
    if main(["runs/a", "--port", "0", "--host", host]) == 2 and host == "::1":
        pytest.skip("this machine has no IPv6")
    ((app, (sock,)),) = apps
    address = f"http://{shown}:{sock.getsockname()[1]}"
    sock.close()
    assert capsys.readouterr().out == f"{address}\n"
    assert TestClient(app, base_url=address).get("/").status_code == 200
    assert TestClient(app, base_url="http://evil.example").get("/").status_code == rebound
