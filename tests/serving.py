"""Helpers for tests of the server: a listener that needs no network, a test client, and encoded sound."""

import io

import numpy as np
import pytest
import soundfile

from rann_jax.listener import Listener
from rann_jax.timeline import WindowProbabilities

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("httpx2", reason="FastAPI's test client needs httpx2")
uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from fastapi.testclient import TestClient  # noqa: E402 - after the skip

from rann_jax.serve.app import create_app  # noqa: E402
from rann_jax.serve.limits import Limits  # noqa: E402

RATE = 8000
MODELS = {"models": ["a"], "rule": None}


class Loudness(Listener):
    """A listener that scores how loud each window of 0.1 s is."""

    def __init__(self):
        self.labels, self.task = ("loud", "quiet"), "classification"
        self.sample_rate, self.crop_samples, self.batch_size = RATE, 800, 16

    def infer(self, windows):
        loud = np.abs(windows).max(axis=1)
        return WindowProbabilities(np.stack([loud, 1 - loud], axis=1))


def client(listener=None, about=MODELS, **limits) -> TestClient:
    app = create_app(listener or Loudness(), about, Limits(**limits), hosts=["testserver"])
    return TestClient(app, raise_server_exceptions=False)


def encoded(wave, rate=RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **{"format": "WAV"} | options)
    return file.getvalue()


WHOLE = encoded(np.zeros(1600))
