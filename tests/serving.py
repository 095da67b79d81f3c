"""Helpers for tests of the server: a test client, and encoded sound."""

import io

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("httpx2", reason="FastAPI's test client needs httpx2")
uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from fastapi.testclient import TestClient  # noqa: E402 - after the skip

from rann_jax.serve.app import create_app  # noqa: E402
from rann_jax.serve.limits import Limits  # noqa: E402
from tests.fake_models import RATE, Loudness  # noqa: E402

MODELS = {"models": ["a"], "rule": None}


def client(listener=None, about=MODELS, **limits) -> TestClient:
    app = create_app(listener or Loudness(), about, Limits(**limits), hosts=["testserver"])
    return TestClient(app, raise_server_exceptions=False)


def encoded(wave, rate=RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **{"format": "WAV"} | options)
    return file.getvalue()


WHOLE = encoded(np.zeros(1600))
