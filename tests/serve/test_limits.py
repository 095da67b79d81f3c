"""Limits of the server: uploads, slow clients, rate of requests, and sounds that wait."""

import asyncio
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
httpx = pytest.importorskip("httpx2", reason="FastAPI's test client needs httpx2")

from fastapi.testclient import TestClient  # noqa: E402

from rann_jax.serve.app import create_app  # noqa: E402
from rann_jax.serve.limits import CLIENTS, Limits, RequestRate  # noqa: E402
from tests.fake_models import Loudness  # noqa: E402
from tests.serving import MODELS, WHOLE, client, encoded  # noqa: E402


@pytest.mark.fast
def test_upload_limits():
    http = client(bytes=1000)
    declared = http.post("/api/tag", content=b"x" * 1001)
    assert (declared.status_code, declared.json()["error"]) == (413, "the upload is larger than 1,000 bytes")
    lying = http.post("/api/tag", content=b"x", headers={"Content-Length": "9" * 5000})
    assert lying.status_code == 413
    taken = []

    def endless():
        while True:
            taken.append(100)
            yield b"x" * 100

    # The test client would read the whole body, so this request bypasses it; the server must answer early.
    app = create_app(Loudness(), MODELS, Limits(bytes=1000), hosts=["*"])
    chunks = endless()

    async def receive():
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    assert asyncio.run(asked(app, receive)) == 413
    assert len(taken) == 11


async def asked(app, receive, client="127.0.0.1") -> int:
    """Return the status of a client's request whose body comes from `receive`."""
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
    """Return a `receive` that gives the chunks of a body, which then ends or hangs."""
    parts = iter(chunks)

    async def receive():
        if (part := next(parts, None)) is not None:
            return {"type": "http.request", "body": part, "more_body": True}
        if not ends:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def started(app, client: str, size: int) -> asyncio.Task:
    """Start an upload that sends `size` bytes and then hangs, unless it is refused."""
    task = asyncio.create_task(asked(app, coming(bytes(size)), client))
    for _ in range(20):
        await asyncio.sleep(0)
    return task


@pytest.mark.fast
def test_a_slow_client_does_not_block_others():
    """Its uploads take no place in the queue, and their number is limited."""
    app = create_app(Loudness(), MODELS, Limits(waiting=3), hosts=["*"])

    async def scene() -> list[int]:
        slow = [await started(app, "slow", 100) for _ in range(4)]
        assert [task.done() for task in slow] == [False, False, False, True]
        statuses = [slow[3].result(), await asked(app, coming(WHOLE, ends=True), "other")]
        for task in slow[:3]:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return [*statuses, await asked(app, coming(WHOLE, ends=True), "slow")]  # after its slow uploads

    assert asyncio.run(scene()) == [503, 200, 200]


@pytest.mark.fast
def test_bytes_of_concurrent_uploads_are_limited():
    """One client may send the bytes of one upload, all clients together those of `waiting` uploads."""
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
def test_rate_of_requests_is_limited():
    http = client(per_minute=2)
    assert [http.post("/api/tag", content=WHOLE).status_code for _ in range(2)] == [200, 200]
    refused = http.post("/api/tag", content=WHOLE)
    assert refused.status_code == 429
    assert refused.json() == {"error": "more than 2 requests a minute: try again later"}
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
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 30]  # "a" was forgotten, so that memory stays bounded


@pytest.mark.fast
def test_the_addresses_of_an_ipv6_network_are_one_client():
    """An IPv6 client has 2**64 addresses to choose from, so each of them cannot have limits of its own."""
    app = create_app(Loudness(), MODELS, Limits(per_minute=1), hosts=["testserver"])

    def status(address: str) -> int:
        return TestClient(app, client=(address, 1)).post("/api/tag", content=WHOLE).status_code

    assert [status(f"2001:db8::{host}") for host in ("1", "2", "ffff:0:0:3")] == [200, 429, 429]
    assert status("2001:db8:0:1::1") == 200
    assert [status(address) for address in ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2")] == [
        200,
        429,
        200,
    ]
    assert [status(name) for name in ("fe80::1%eth0", "fe80::2%eth0", "unknown", "unknown")] == [
        200,
        429,
        200,
        429,
    ]


class Slow(Loudness):
    """Blocks in `infer` until released, and counts how many sounds it hears at once."""

    def __init__(self):
        super().__init__()
        self.go, self.hearing, self.most = threading.Event(), 0, 0

    def infer(self, windows):
        self.hearing += 1
        self.most = max(self.most, self.hearing)
        assert self.go.wait(60)
        self.hearing -= 1
        return super().infer(windows)


async def posted(app, client: str, content: bytes = WHOLE) -> asyncio.Task:
    """Post a sound and return the task, which is done if it was refused, but may go on for any time."""
    transport = httpx.ASGITransport(app, client=(client, 1))
    http = httpx.AsyncClient(transport=transport, base_url="http://testserver")
    task = asyncio.create_task(http.post("/api/tag", content=content))
    for _ in range(50):
        await asyncio.sleep(0)
    return task


@pytest.mark.fast
def test_sounds_are_heard_one_at_a_time_and_few_wait():
    slow = Slow()
    app = create_app(slow, MODELS, Limits(waiting=3), hosts=["*"])

    async def scene() -> list[int]:
        tasks = [await posted(app, client) for client in "abcd"]
        assert [task.done() for task in tasks] == [False, False, False, True]
        refused = tasks[3].result()
        assert refused.json() == {"error": "too many sounds are waiting: try again"}
        assert refused.headers["retry-after"] == "1"
        assert (await started(app, "e", 0)).result() == 503  # before its upload
        slow.go.set()
        return [(await task).status_code for task in tasks]

    assert asyncio.run(scene()) == [200, 200, 200, 503]
    assert slow.most == 1


@pytest.mark.fast
def test_the_sounds_of_one_client_do_not_keep_out_others():
    slow = Slow()
    app = create_app(slow, MODELS, Limits(), hosts=["testserver"])

    async def scene() -> list[int]:
        tasks = [await posted(app, client) for client in "aaabba"]
        assert [task.done() for task in tasks] == [False, False, True, False, False, True]
        assert tasks[2].result().json() == {"error": "2 of your sounds are waiting: try again"}
        slow.go.set()
        statuses = [(await task).status_code for task in tasks]
        return [*statuses, (await (await posted(app, "a"))).status_code]  # after its first sounds

    assert asyncio.run(scene()) == [200, 200, 503, 200, 200, 503, 200]


@pytest.mark.fast
@pytest.mark.parametrize("limits", [{"waiting": 1}, {"waiting_of_a_client": 1}], ids=["all", "client"])
def test_an_upload_that_ends_when_the_queue_is_full_is_refused(limits):
    """The queue had a place when the upload began, but another sound has taken it since."""
    slow = Slow()
    app = create_app(slow, MODELS, Limits(**limits), hosts=["*"])

    async def scene() -> list[int]:
        go_on = asyncio.Event()
        rest = coming(WHOLE, ends=True)

        async def late():
            await go_on.wait()
            return await rest()

        upload = asyncio.create_task(asked(app, late, "a"))
        await asyncio.sleep(0)
        faster = await posted(app, "b" if "waiting" in limits else "a")
        go_on.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert upload.done()
        slow.go.set()
        return [upload.result(), (await faster).status_code]

    assert asyncio.run(scene()) == [503, 200]


@pytest.mark.fast
@pytest.mark.parametrize("says_length", [True, False])
def test_a_fine_hop_takes_only_shorter_sounds(says_length, monkeypatch):
    """In windows of 0.1 s every 0.05 s, the longest sound has 19; every 0.01 s they cover 0.28 s."""
    http = client(seconds=1.0)
    assert http.get("/api/model").json()["limits"]["windows"] == 19
    if not says_length:
        monkeypatch.setattr("rann_jax.serve.answer.UNKNOWN_SECONDS", 0)
    statuses = []
    for hop, samples in ((0.05, 8000), (0.01, 2240), (0.01, 2241), (0.1, 8000), (0.1, 8001)):
        response = http.post(f"/api/tag?hop={hop}", content=encoded(np.zeros(samples)))
        statuses.append(response.status_code)
        if response.status_code == 422 and hop == 0.01:
            says = "it is 0.280125 s long, more than" if says_length else "it is longer than"
            assert response.json() == {"error": f"{says} the 0.28 s allowed at this hop (19 windows)"}
        if response.status_code == 200 and hop == 0.01:
            assert len(response.json()["timeline"]["starts"]) == 19
    assert statuses == [200, 200, 422, 200, 422]


@pytest.mark.fast
def test_any_finite_limit_of_seconds_can_be_used():
    assert client(seconds=1e308).post("/api/tag?hop=0.01", content=WHOLE).status_code == 200
