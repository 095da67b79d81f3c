"""The server: its answers about a sound, and how it handles hostile uploads."""

import base64
import re
import socket
import struct
import sys

import numpy as np
import pytest

import rann_jax
from rann_jax.serve.__main__ import main
from rann_jax.tagging.tagger_ensemble import TaggerEnsemble
from tests.conftest import TINY_LABELS
from tests.fake_models import RATE, ZADEH, constant
from tests.refusals import assert_one_error

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from fastapi.testclient import TestClient

from input_pipeline.audio import AudioError
from rann_jax.serve.answer import at_most
from rann_jax.serve.app import HEADERS, PAGE, create_app
from rann_jax.serve.limits import Limits
from tests.serving import MODELS, WHOLE, client, encoded


def wav_header(*, channels=1, rate=RATE, data_bytes=1600, data=b"\0" * 1600) -> bytes:
    """Return a RIFF file of 16-bit PCM whose header makes arbitrary claims."""
    form = struct.pack("<HHIIHH", 1, channels, rate, 0xFFFFFFFF & (2 * rate * channels), 2, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", data_bytes) + data
    return b"RIFF" + struct.pack("<I", 36 + data_bytes) + b"WAVE" + chunks


@pytest.mark.fast
def test_tags_timeline_and_spectrogram_by_hand():
    """A 1 kHz tone, quiet for one second and louder for another, in windows of 0.1 s without overlap."""
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
    # Three times the amplitude is 9.54 dB; 255 levels span 80 dB.
    assert int(cells[-5].max()) - int(cells[5].max()) == pytest.approx(9.54 / 80 * 255, abs=1)


def test_answers_equal_those_of_the_tagger(tiny_workdir):
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
    """Zadeh's paradox: Dempster's rule picks the class that both models consider almost impossible."""
    ensemble = TaggerEnsemble([constant(p) for p in ZADEH], rule="ds", batch_size=4)
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
    "an hour in little": (
        encoded(np.zeros(3600 * 1000, np.int16), 1000, format="FLAC"),
        "3600 s long, more than",
    ),
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
    with pytest.raises(AudioError, match="it is longer than the 2 s allowed"):
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
def test_client_names_are_ignored():
    """Only the content counts, and no path is made from the names that a client sends."""
    headers = {"Content-Disposition": 'attachment; filename="../../etc/passwd"', "Content-Type": "text/plain"}
    assert client().post("/api/tag", content=WHOLE, headers=headers).status_code == 200
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
def test_other_sites_and_wrong_parameters_are_refused():
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
        "topp=3": "'topp' is not known here: use top, hop or spectrogram",
        "top=3&filename=../etc": "'filename' is not known here",
        "n%0A%00=1": r"'n\n\x00' is not known here",
        f"{'n' * 999}=1": f"'{'n' * 40}' is not known here",
    }.items():
        response = http.post(f"/api/tag?{query}", content=WHOLE)
        assert response.status_code == 400
        assert response.json()["error"].startswith(says)
    response = http.get("/api/model?top=1")
    assert (response.status_code, response.json()) == (400, {"error": "'top' is not known here: use none"})
    assert http.get("/?from=elsewhere").status_code == 200


@pytest.mark.fast
def test_wrong_paths_and_methods_are_refused_as_other_errors_are():
    http = client()
    for path in ("/api/tags", "/docs"):
        response = http.get(path)
        says = "no such path: the API has POST /api/tag and GET /api/model"
        assert (response.status_code, response.json()) == (404, {"error": says})
    response = http.get("/api/tag")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json() == {"error": "method not allowed: use POST"}
    assert http.post("/").json() == {"error": "method not allowed: use GET"}


@pytest.mark.fast
def test_the_api_says_which_classes_the_timeline_has():
    said = client().get("/openapi.json").json()["paths"]["/api/tag"]["post"]["description"]
    assert "timeline.labels are the `top` classes with the most probable single windows" in " ".join(
        said.split()
    )


@pytest.mark.fast
def test_the_page_loads_nothing_from_other_servers():
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
def test_wrong_use_is_one_line(tmp_path, tiny_workdir, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, says in (
            ([str(tmp_path)], "holds no checkpoints"),
            ([str(tiny_workdir), "--port", port], f"--port={port}: "),
            ([str(tiny_workdir), "--port", "70000"], "--port=70000: "),
            ([str(tiny_workdir), "--max-seconds", "0"], "must be positive"),
            ([str(tiny_workdir), "--max-seconds", "nan"], "must be positive"),
            ([str(tiny_workdir), "--proxy", "*"], "--proxy=*: it must be an IP address"),
            ([str(tiny_workdir), "--rule", "ds"], "--rule=ds fuses several models"),
            ([str(tiny_workdir), "--weights", "1,2"], "--weights=1,2 fuses several models"),
            (
                [str(tiny_workdir), f"{tiny_workdir}/../{tiny_workdir.name}"],
                f"the same run is named twice, as {tiny_workdir} and ",
            ),
            ([str(tiny_workdir), "--max-megabytes", "inf"], "must be positive and finite"),
            ([str(tiny_workdir)], 'needs uvicorn: pip install -e ".[serve]"'),
        ):
            if "uvicorn" in says:
                monkeypatch.setitem(sys.modules, "uvicorn", None)
            assert main(arguments) == 2
            assert_one_error(capsys.readouterr().err, says)


def test_compiled_before_the_first_sound(tiny_workdir):
    """Starting the app compiles in the listening thread; stopping it ends that thread."""
    tagger = rann_jax.Tagger.load(tiny_workdir, batch_size=2)
    app = create_app(tagger, MODELS, Limits(), hosts=["testserver"])
    with TestClient(app) as http:
        assert http.get("/api/model").json()["labels"] == TINY_LABELS
        assert http.post("/api/tag", content=encoded(np.zeros(800), 16000)).status_code == 200
    assert tagger._probabilities._cache_size() == 2  # batches of 1 and 2
