"""The page's server: what it says of a sound, and what it makes of uploads that mean it harm."""

import asyncio
import base64
import contextlib
import io
import re
import socket
import struct
import sys
import threading

import numpy as np
import pytest
import soundfile

import rann_jax
from rann_jax.listener import Listener
from rann_jax.serve.__main__ import main
from rann_jax.tagger_ensemble import TaggerEnsemble
from rann_jax.timeline import Judgement
from tests.conftest import TINY_LABELS
from tests.test_tagger_ensemble import ZADEH, fake

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
httpx = pytest.importorskip("httpx2", reason="FastAPI's test client needs httpx2")
uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from fastapi.testclient import TestClient  # noqa: E402 - after the skip

from input_pipeline.audio import AudioError  # noqa: E402
from rann_jax.serve import connection  # noqa: E402
from rann_jax.serve.answer import at_most  # noqa: E402
from rann_jax.serve.app import HEADERS, PAGE, create_app  # noqa: E402
from rann_jax.serve.limits import CLIENTS, Limits, RequestRate  # noqa: E402

RATE = 8000
MODELS = {"models": ["a"], "rule": None}


class Loudness(Listener):
    """Hears how loud a window of 0.1 s is."""

    def __init__(self):
        self.labels, self.task = ("loud", "quiet"), "classification"
        self.sample_rate, self.crop_samples, self.batch_size = RATE, 800, 16

    def judge(self, windows):
        loud = np.abs(windows).max(axis=1)
        return Judgement(np.stack([loud, 1 - loud], axis=1))


def client(listener=None, about=MODELS, **limits) -> TestClient:
    app = create_app(listener or Loudness(), about, Limits(**limits), hosts=["testserver"])
    return TestClient(app, raise_server_exceptions=False)


def encoded(wave, rate=RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **{"format": "WAV"} | options)
    return file.getvalue()


def wav_header(*, channels=1, rate=RATE, data_bytes=1600, data=b"\0" * 1600) -> bytes:
    """A RIFF file of 16-bit PCM that claims what it likes."""
    form = struct.pack("<HHIIHH", 1, channels, rate, 0xFFFFFFFF & (2 * rate * channels), 2, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", data_bytes) + data
    return b"RIFF" + struct.pack("<I", 36 + data_bytes) + b"WAVE" + chunks


@pytest.mark.fast
def test_tags_timeline_and_spectrogram_by_hand():
    """A second of a quiet and a second of a louder tone of 1 kHz, in windows of 0.1 s without overlap."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE + 0.5)
    wave = np.concatenate([0.25 * tone, 0.75 * tone])
    response = client().post("/api/tag?hop=0.1&spectrogram=true", content=encoded(wave, subtype="FLOAT"))
    assert response.status_code == 200
    answer = response.json()
    assert (answer["seconds"], answer["sample_rate"]) == (2.0, RATE)
    peak = np.abs(tone).max()
    tags = {tag["label"]: tag["probability"] for tag in answer["tags"]}
    assert tags == pytest.approx({"loud": 0.5 * peak, "quiet": 1 - 0.5 * peak}, abs=1e-5)
    assert "conflict" not in answer
    timeline = answer["timeline"]
    assert timeline["starts"] == pytest.approx(np.arange(20) / 10)
    assert timeline["labels"] == ["quiet", "loud"]  # the quiet half comes first
    loud = np.array(timeline["probabilities"])[:, 1]
    np.testing.assert_allclose(loud, peak * np.repeat([0.25, 0.75], 10), atol=1e-4)
    picture = answer["spectrogram"]
    cells = np.frombuffer(base64.b64decode(picture["levels"]), np.uint8).reshape(-1, picture["bands"])
    assert len(cells) == len(picture["begins"])
    assert cells.max() == 255
    (band,) = (band for hertz, band in picture["ticks"] if hertz == 1000)
    assert abs(int(cells[5].argmax()) - band) <= 1
    # Three times the amplitude is 9.54 dB, of 80 dB in 255 levels.
    assert int(cells[-5].max()) - int(cells[5].max()) == pytest.approx(9.54 / 80 * 255, abs=1)


def test_it_says_what_the_tagger_says(tiny_workdir):
    tagger = rann_jax.Tagger.load(tiny_workdir, batch_size=2)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 20000).astype(np.float32)
    content = encoded(wave, 16000, format="FLAC", subtype="PCM_24")
    answer = client(tagger).post("/api/tag?top=3", content=content).json()
    expected = tagger.tag(wave, 16000)
    assert [tag["label"] for tag in answer["tags"]] == list(expected)[:3]
    shown = [tag["probability"] for tag in answer["tags"]]
    np.testing.assert_allclose(shown, list(expected.values())[:3], atol=1e-5)


@pytest.mark.fast
def test_an_ensemble_shows_fusion_conflict_and_each_model():
    """Zadeh's paradox: Dempster's rule believes what both models hold for all but impossible."""
    ensemble = TaggerEnsemble([fake(p) for p in ZADEH], rule="ds", batch_size=4)
    http = client(ensemble, {"models": ["a", "b"], "rule": "ds"})
    answer = http.post("/api/tag?top=1", content=encoded(np.zeros(2000))).json()
    assert answer["conflict"] == pytest.approx(1 - 0.01**2, abs=1e-5)
    assert answer["timeline"]["conflict"] == pytest.approx([1 - 0.01**2] * 9, abs=1e-4)
    assert answer["models"] == ["a", "b"]
    (tag,) = answer["tags"]
    assert (tag["label"], tag["probability"]) == ("cat", pytest.approx(1, abs=1e-5))
    assert tag["by_model"] == pytest.approx([0.01, 0.01], abs=1e-6)
    about = http.get("/api/model").json()
    assert about["rule"] == "ds"
    assert about["labels"] == ["dog", "cat", "rain"]


NAN = np.full(1600, 0.5, np.float32)
NAN[-1] = np.nan
WHOLE = encoded(np.zeros(1600))
HOSTILE = {
    "garbage": (b"\x93garbage\0" * 100, "not decodable"),
    "empty": (b"", "not decodable"),
    "no sound": (encoded(np.zeros(0)), "no samples"),
    "a zip": (b"PK\3\4" + b"\0" * 200, "not decodable"),
    "a page": (b"<html><script>alert(1)</script>", "not decodable"),
    "cut off": (WHOLE[:1000], "truncated"),
    "a length that is not there": (wav_header(data_bytes=0x7000_0000), "truncated: its data has 1600 of"),
    "NaN": (encoded(NAN, subtype="FLOAT"), "NaN or infinite"),
    "infinite": (encoded(np.full(80, np.inf, np.float32), subtype="FLOAT"), "NaN or infinite"),
    "absurdly loud": (encoded(np.full(80, 3e38, np.float32), subtype="FLOAT"), "times full scale"),
    "an hour in little": (encoded(np.zeros(3600 * 1000, np.int16), 1000, format="FLAC"), "3600 s, more than"),
    "1 Hz": (wav_header(rate=1), "its rate is 1 Hz"),
    "2 GHz": (wav_header(rate=2**31 - 1), "its rate is 2147483647 Hz"),
    "no rate": (wav_header(rate=0), ""),
    "65535 channels": (wav_header(channels=65535), ""),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_uploads_are_refused_in_one_line(name):
    content, says = HOSTILE[name]
    response = client(seconds=10).post("/api/tag?spectrogram=true", content=content)
    assert response.status_code == 422
    assert says in response.json()["error"]
    assert "\n" not in response.json()["error"]


@pytest.mark.fast
def test_samples_are_counted_whatever_the_header_claims():
    blocks = iter([np.zeros(1500), np.zeros(500), np.zeros(1)])
    counted = at_most(blocks, 1000, max_seconds=2)
    assert [len(next(counted)), len(next(counted))] == [1500, 500]
    with pytest.raises(AudioError, match="it has more than 2 s"):
        next(counted)


@pytest.mark.fast
def test_damaged_bytes_are_never_an_error_of_the_server():
    rng = np.random.default_rng(0)
    http = client(per_minute=1000, seconds=10)
    for kind in ("WAV", "FLAC", "OGG", "AIFF"):
        whole = np.frombuffer(encoded(rng.uniform(-0.5, 0.5, 1600), format=kind), np.uint8)
        for _ in range(30):
            broken = whole.copy()
            where = rng.integers(0, min(len(broken), 200), 4)
            broken[where] = rng.integers(0, 256, len(where))
            response = http.post("/api/tag?spectrogram=true", content=broken.tobytes())
            assert response.status_code in (200, 422), (kind, response.text)


@pytest.mark.fast
def test_names_mean_nothing():
    """The content decides, and no path is made of what a client calls it."""
    headers = {"Content-Disposition": 'attachment; filename="../../etc/passwd"', "Content-Type": "text/plain"}
    url = "/api/tag?filename=../../../etc/passwd&name=%00.mp3"
    assert client().post(url, content=WHOLE, headers=headers).status_code == 200
    for path in (
        "/../app.py",
        "/page/../../app.py",
        "/%2e%2e/app.py",
        "//etc/passwd",
        "/docs",
    ):
        assert client().get(path).status_code == 404
    multipart = client().post("/api/tag", files={"file": ("../../x.wav", WHOLE)})
    assert multipart.status_code == 415
    assert "curl --data-binary @FILE" in multipart.json()["error"]


@pytest.mark.fast
def test_upload_limits():
    http = client(bytes=1000)
    declared = http.post("/api/tag", content=b"x" * 1001)
    assert (declared.status_code, declared.json()["error"]) == (413, "larger than 1,000 bytes")
    lying = http.post("/api/tag", content=b"x", headers={"Content-Length": "9" * 5000})
    assert lying.status_code == 413
    taken = []

    def endless():
        while True:
            taken.append(100)
            yield b"x" * 100

    # The test client reads it whole, so it must end; the server must have its answer before that.
    app = create_app(Loudness(), MODELS, Limits(bytes=1000), hosts=["*"])
    chunks = endless()

    async def receive():
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    assert asyncio.run(asked(app, receive)) == 413
    assert len(taken) == 11


async def asked(app, receive, client="127.0.0.1") -> int:
    """The status of a client's request whose body comes from `receive`."""
    sent = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/tag",
        "raw_path": b"/api/tag",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": (client, 1),
        "server": ("127.0.0.1", 8000),
    }

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.fast
def test_slow_and_broken_uploads():
    app = create_app(Loudness(), MODELS, Limits(upload_seconds=0.01), hosts=["*"])

    async def nothing_comes():
        await asyncio.Event().wait()

    async def gone():
        return {"type": "http.disconnect"}

    assert asyncio.run(asked(app, nothing_comes)) == 408
    assert asyncio.run(asked(app, gone)) == 400


def coming(*chunks: bytes, ends: bool = False):
    """Receives the chunks of a body, which then ends or never goes on."""
    parts = iter(chunks)

    async def receive():
        if (part := next(parts, None)) is not None:
            return {"type": "http.request", "body": part, "more_body": True}
        if not ends:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def started(app, client: str, size: int) -> asyncio.Task:
    """An upload that has sent `size` bytes and goes on, or was refused."""
    task = asyncio.create_task(asked(app, coming(bytes(size)), client))
    for _ in range(20):
        await asyncio.sleep(0)
    return task


@pytest.mark.fast
def test_a_slow_client_keeps_nobody_out():
    """Its uploads take no place in the queue, and are so many at most."""
    app = create_app(Loudness(), MODELS, Limits(waiting=3), hosts=["*"])

    async def scene() -> list[int]:
        slow = [await started(app, "slow", 100) for _ in range(4)]
        assert [task.done() for task in slow] == [False, False, False, True]
        statuses = [slow[3].result(), await asked(app, coming(WHOLE, ends=True), "other")]
        for task in slow[:3]:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return [*statuses, await asked(app, coming(WHOLE, ends=True), "slow")]  # once they are gone

    assert asyncio.run(scene()) == [503, 200, 200]


@pytest.mark.fast
def test_uploads_are_bounded_together():
    """Of one client to the bytes of one upload, of all to those of `waiting` uploads."""
    app = create_app(Loudness(), MODELS, Limits(waiting=2, bytes=1000), hosts=["*"])

    async def scene() -> list[bool]:
        tasks = [await started(app, *what) for what in (("a", 600), ("a", 401), ("b", 1000), ("c", 401))]
        assert {task.result() for task in tasks if task.done()} == {503}
        tasks.append(await started(app, "c", 400))
        done = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done

    assert asyncio.run(scene()) == [False, True, False, True, False]


@pytest.mark.fast
def test_rate_of_requests():
    http = client(per_minute=2)
    assert [http.post("/api/tag", content=WHOLE).status_code for _ in range(2)] == [200, 200]
    refused = http.post("/api/tag", content=WHOLE)
    assert refused.status_code == 429
    assert refused.json() == {"error": "more than 2 requests a minute"}
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    now = [0.0]
    rate = RequestRate(2, clock=lambda: now[0])
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 30]
    now[0] = 29.0
    assert rate.wait("a") == pytest.approx(1)
    now[0] = 30.0
    assert rate.wait("a") == 0
    for other in range(CLIENTS):
        rate.wait(str(other))
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 30]  # forgotten: memory is bounded


class Slow(Loudness):
    """Listens until it is let go, and counts how many sounds it hears at once."""

    def __init__(self):
        super().__init__()
        self.go, self.hearing, self.most = threading.Event(), 0, 0

    def judge(self, windows):
        self.hearing += 1
        self.most = max(self.most, self.hearing)
        assert self.go.wait(60)
        self.hearing -= 1
        return super().judge(windows)


@pytest.mark.fast
def test_sounds_are_heard_one_at_a_time_and_few_wait():
    slow = Slow()
    app = create_app(slow, MODELS, Limits(waiting=3), hosts=["testserver"])

    async def four() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
            tasks = [asyncio.create_task(http.post("/api/tag", content=WHOLE)) for _ in range(4)]
            refused = await next(asyncio.as_completed(tasks))  # only a refusal can be done by now
            slow.go.set()
            assert refused.headers["retry-after"] == "1"
            return sorted([(await task).status_code for task in tasks])

    assert asyncio.run(four()) == [200, 200, 200, 503]
    assert slow.most == 1


@pytest.mark.fast
def test_other_sites_and_wrong_parameters():
    http = client(per_minute=1000)
    assert http.get("/", headers={"Host": "evil.example"}).status_code == 400
    other = http.post("/api/tag", content=WHOLE, headers={"Sec-Fetch-Site": "cross-site"})
    assert other.status_code == 403
    for query, says in {
        "top=0": "top: ",
        "top=many": "top: ",
        "hop=nan": "hop: ",
        "hop=-1": "hop: ",
        "hop=0.2": "hop: it must be between 0.005 and 0.1 s",
        "hop=1e-9": "hop: it must be between",
    }.items():
        response = http.post(f"/api/tag?{query}", content=WHOLE)
        assert response.status_code == 400
        assert response.json()["error"].startswith(says)


@pytest.mark.fast
def test_the_page_needs_nothing_from_elsewhere():
    http = client()
    pages = {path: http.get(path) for path in PAGE}
    wanted = set(
        re.findall(r'(?:href|src)="([^"]+)"|from "\./([^"]+)"', "".join(p.text for p in pages.values()))
    )
    assert {a or b for a, b in wanted} == {"data:,", "page.css", "page.js", "draw.js", "sound.js"}
    for page in pages.values():
        assert page.status_code == 200
        assert page.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        assert not re.search(r"https?://|innerHTML|insertAdjacent|document\.write|eval\(", page.text)
    asked_for = set(re.findall(r'\$\("([a-z-]+)"\)', pages["/page.js"].text))
    assert asked_for <= set(re.findall(r'id="([a-z-]+)"', pages["/"].text))


@pytest.mark.fast
def test_it_listens_on_this_machine_alone(monkeypatch, capsys):
    """What the command line starts: address, names, limits."""
    started = {}
    monkeypatch.setattr(
        "rann_jax.serve.__main__.load", lambda *arguments: started.update(load=arguments) or Loudness()
    )

    def run(self, sockets):
        started.update(address=sockets[0].getsockname(), app=self.config.app)
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    assert main(["runs/a", "other/a", "--rule", "ds", "--port", "0", "--max-seconds", "7"]) == 0
    host, port = started["address"]
    assert host == "127.0.0.1"
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}\n"
    http = TestClient(started["app"], base_url="http://localhost")
    about = http.get("/api/model").json()
    assert about["models"] == ["runs/a", "other/a"]  # one name would not tell them apart
    assert about["limits"] == {"bytes": 64_000_000, "seconds": 7, "per_minute": 60}
    assert TestClient(started["app"], base_url="http://evil.example").get("/").status_code == 400


@pytest.fixture
def launched(monkeypatch):
    """What the command line would run: uvicorn's configuration, and the socket."""
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
def test_an_address_is_believed_of_the_proxy_alone(arguments, statuses, launched):
    """Of the addresses in the header the last is the proxy's own word, the rest its client's."""
    config, _ = launched("--per-minute", "1", *arguments)
    config.load()
    http = TestClient(config.loaded_app, base_url="http://localhost", client=("127.0.0.1", 4000))
    headers = ({"X-Forwarded-For": f"9.9.9.{i}, 8.8.8.{i % 2}"} for i in range(3))
    assert [http.post("/api/tag", content=WHOLE, headers=h).status_code for h in headers] == statuses


@contextlib.asynccontextmanager
async def running(config: uvicorn.Config, sock: socket.socket):
    """The server itself, and a way to connect to it from an address of this machine."""
    async with contextlib.AsyncExitStack() as stack:
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([sock]))
        while not server.started:
            await asyncio.sleep(0.01)

        async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            streams = await asyncio.open_connection(*sock.getsockname(), local_addr=(address, 0))
            stack.callback(streams[1].close)
            return streams

        yield connect
        server.should_exit = True
        stack.push_async_callback(asyncio.wait_for, task, 30)


async def heard(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> bytes:
    """The first line of the answer; none where the server closes the connection."""
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
def test_silent_connections_of_one_client_keep_nobody_out(proxy, launched):
    """A client has so many at most; a proxy stands for many clients."""
    config, sock = launched(*(["--proxy", "127.0.0.1"] if proxy else []))

    async def scene() -> list[bytes]:
        async with running(config, sock) as connect:
            silent = [await connect("127.0.0.1") for _ in range(connection.OF_A_CLIENT)]
            answers = [await heard(await connect(address), ASKED) for address in ("127.0.0.1", "127.0.0.2")]
            return [*answers, await heard(silent[0], ASKED)]

    assert asyncio.run(scene()) == [OK if proxy else b"", OK, OK]


@pytest.mark.fast
def test_who_asks_nothing_is_sent_away(launched, monkeypatch):
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    config, sock = launched()

    async def scene() -> list[bytes]:
        async with running(config, sock) as connect:
            asks = await connect("127.0.0.1")
            first = await heard(asks, ASKED)
            slow = await heard(await connect("127.0.0.1"), ASKED[:20])
            return [first, slow, await heard(asks, ASKED)]

    assert asyncio.run(scene()) == [OK, b"", OK]


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
    """A browser can be led to any address by another site's name; where only it can come, none is taken."""
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


@pytest.mark.fast
def test_wrong_use_is_one_line(tmp_path, tiny_workdir, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, says in (
            ([str(tmp_path)], "holds no checkpoints"),
            ([str(tiny_workdir), "--port", port], f"--port={port}: "),
            ([str(tiny_workdir), "--port", "70000"], "--port=70000: "),
            ([str(tiny_workdir), "--max-seconds", "0"], "must be positive"),
            ([str(tiny_workdir), "--max-seconds", "nan"], "must be positive"),
            ([str(tiny_workdir), "--proxy", "*"], "--proxy=*: it must be an address"),
            ([str(tiny_workdir), "--rule", "ds"], "--rule=ds fuses several models"),
            ([str(tiny_workdir), "--max-megabytes", "inf"], "must be positive and finite"),
            ([str(tiny_workdir)], 'needs uvicorn: pip install -e ".[serve]"'),
        ):
            if "uvicorn" in says:
                monkeypatch.setitem(sys.modules, "uvicorn", None)
            assert main(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("error: ")
            assert says in line


def test_compiled_before_the_first_sound(tiny_workdir):
    """Entering the app compiles in the thread that listens; leaving it ends that thread."""
    tagger = rann_jax.Tagger.load(tiny_workdir, batch_size=2)
    app = create_app(tagger, MODELS, Limits(), hosts=["testserver"])
    with TestClient(app) as http:
        assert http.get("/api/model").json()["labels"] == TINY_LABELS
        assert http.post("/api/tag", content=encoded(np.zeros(800), 16000)).status_code == 200
    assert tagger._probabilities._cache_size() == 2  # batches of 1 and 2
