"""How the server stops: promptly, whatever it computes, and with a reason for clients that are cut off."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
httpx = pytest.importorskip("httpx2", reason="FastAPI's test client needs httpx2")

from rann_jax.serve.app import create_app  # noqa: E402 - after the skip
from rann_jax.serve.limits import Limits  # noqa: E402
from tests.conftest import REPOSITORY, launched  # noqa: E402
from tests.fake_models import RATE, Loudness  # noqa: E402
from tests.serving import MODELS, encoded  # noqa: E402

SECOND = encoded(np.zeros(RATE))
STOPPING = {"error": "the server is stopping"}


class Stepwise(Loudness):
    """Waits before each window until it is allowed, and counts the windows."""

    batch_size = 1

    def __init__(self):
        self.allowed, self.begun, self.windows = threading.Semaphore(0), threading.Event(), 0

    def infer(self, windows):
        self.begun.set()
        assert self.allowed.acquire(timeout=60)
        self.windows += 1
        return super().infer(windows)


@pytest.mark.fast
def test_a_sound_is_given_up_between_batches():
    """So are the sounds that wait for it, and later ones."""
    model = Stepwise()
    app = create_app(model, MODELS, Limits(waiting=3), hosts=["*"])
    model.allowed.release()  # for the warm-up

    async def scene() -> list[httpx.Response]:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")
        async with http, app.router.lifespan_context(app):
            while not model.windows:
                await asyncio.sleep(0.01)
            model.begun.clear()
            posts = [asyncio.create_task(http.post("/api/tag", content=SECOND)) for _ in "ab"]
            while not model.begun.is_set():
                await asyncio.sleep(0.01)
            app.state.server.close()
            model.allowed.release(100)
            return [*await asyncio.gather(*posts), await http.post("/api/tag", content=SECOND)]

    answers = asyncio.run(scene())
    assert [(answer.status_code, answer.json()) for answer in answers] == [(503, STOPPING)] * 3
    assert model.windows == 2


@pytest.mark.fast
def test_an_upload_that_is_cut_off_is_told_why():
    app = create_app(Loudness(), MODELS, Limits(), hosts=["*"])

    async def hanging():
        yield b"x"
        await asyncio.Event().wait()

    async def scene() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://testserver"
        ) as http:
            post = asyncio.create_task(http.post("/api/tag", content=hanging()))
            for _ in range(50):
                await asyncio.sleep(0)
            post.cancel()
            return await post

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.json()) == (503, STOPPING)


BUSY = """
import sys, time
from rann_jax.serve import __main__ as program
from tests.fake_models import Loudness

class Busy(Loudness):
    def infer(self, windows):
        if windows.any():
            print("busy", flush=True)
            time.sleep(120)
        return super().infer(windows)

program.load = lambda *_: Busy()
program.STOP_SECONDS = 1
sys.exit(program.main(["runs/a", "--port", "0"]))
"""


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGTERM], -signal.SIGTERM), ([signal.SIGINT], 0), ([signal.SIGINT] * 2, 0)],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C twice"],
)
def test_a_long_computation_does_not_delay_the_end(signals, code):
    """A single batch takes two minutes here; its client is told why it gets no answer."""
    told = []

    def post() -> None:
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{address}/api/tag", data=encoded(np.full(800, 0.5)), timeout=60)
        told.append((caught.value.code, json.load(caught.value)))

    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(command, cwd=REPOSITORY, env=launched(), stdout=subprocess.PIPE, text=True) as run:
        try:
            address = run.stdout.readline().strip()
            client = threading.Thread(target=post)
            client.start()
            assert run.stdout.readline() == "busy\n"
            for number in signals:
                run.send_signal(number)
                time.sleep(0.3)
            assert run.wait(60) == code
            client.join(10)
        finally:
            run.kill()
    assert told == [(503, STOPPING)]
