"""The page in a real browser: choosing a file, recording a microphone, and hostile names shown as text."""

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rann_jax.serve.limits import Limits
from rann_jax.tagging.tagger_ensemble import TaggerEnsemble
from tests.fake_models import RATE, ZADEH, Loudness, constant
from tests.serving import encoded, uvicorn

playwright = pytest.importorskip("playwright.sync_api", reason="the extra 'browser' is not installed")

from rann_jax.serve.app import create_app  # noqa: E402 - after the skip

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def served(listener, models: list[str], rule: str | None) -> Iterator[str]:
    """Run a server in another thread and yield its address."""
    app = create_app(listener, {"models": models, "rule": rule}, Limits(), hosts=["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as at:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{at.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}")
    playwright.expect.set_options(timeout=30_000)  # ms; the default of 5 s is too short on busy cores
    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=microphone)
        yield launched
        launched.close()


@pytest.fixture
def page(browser):
    """An empty page; any error that it logs fails the test."""
    opened = browser.new_page(viewport={"width": 1000, "height": 1100})
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    refused = "status of 422"  # an upload that the test expects to fail
    yield opened
    opened.close()
    assert [text for text in complaints if refused not in text] == []


def tone(path: Path, name: str = "tone.wav") -> Path:
    """Write half a second of a 1 kHz tone and half a second of silence; return the path."""
    wave = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    wave[RATE // 2 :] = 0
    (path / name).write_bytes(encoded(wave))
    return path / name


def colours(page, canvas: str) -> int:
    """Return the number of colours on a canvas."""
    return page.evaluate(
        """id => {
          const canvas = document.getElementById(id);
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return new Set(new Uint32Array(data.buffer)).size;
        }""",
        canvas,
    )


def test_a_chosen_file_is_drawn_and_tagged(page, tmp_path):
    with served(Loudness(), ["a"], None) as address:
        page.goto(address)
        playwright.expect(page.locator("#about")).to_have_text("a: 2 classes, windows of 0.1 s")
        page.set_input_files("#file", tone(tmp_path))
        playwright.expect(page.locator("#name")).to_have_text("tone.wav")
        playwright.expect(page.locator("#facts")).to_have_text("1.00 s at 8 kHz")
        assert page.locator("#tags b").all_text_contents() == ["quiet", "loud"]
        assert page.locator("#tags .number").all_text_contents() == ["74 %", "26 %"]
        assert page.locator("#fusion").is_hidden()
        assert colours(page, "spectrogram") > 20
        assert colours(page, "timeline") > 2
        box = page.locator("#timeline").bounding_box()
        page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 5)
        playwright.expect(page.locator("#hint")).to_have_text("0.90 s: quiet 100 %")
        page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 5)
        assert page.evaluate("document.getElementById('player').currentTime") == pytest.approx(0.5, abs=0.01)


def test_models_that_contradict_each_other_are_shown(page, tmp_path):
    ensemble = TaggerEnsemble([constant(p) for p in ZADEH], rule="ds", batch_size=4)
    with served(ensemble, ["mel", "cqt"], "ds") as address:
        page.goto(address)
        page.set_input_files("#file", tone(tmp_path))
        playwright.expect(page.locator("#conflict")).to_have_text("1.00")
        assert page.locator("#tags b").first.text_content() == "cat"
        assert page.locator("#tags .single").all_text_contents()[:2] == ["1.0 %", "1.0 %"]
        assert colours(page, "conflict-line") > 1


def test_a_microphone_is_heard(page):
    """The microphone is Chromium's fake device, which beeps."""
    with served(Loudness(), ["a"], None) as address:
        page.goto(address)
        page.click("#record")
        playwright.expect(page.locator("#record-text")).to_have_text("Stop, 1 s")
        page.click("#record")
        playwright.expect(page.locator("#result")).to_be_visible()
        playwright.expect(page.locator("#status")).to_have_text("")
        assert page.locator("#tags b").count() == 2


def test_two_clicks_while_permission_is_asked_start_one_recorder(page):
    """The page also reports a recording that the browser itself cannot decode."""
    page.add_init_script(
        """window.asked = [];
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
          await new Promise((permit) => window.asked.push(permit));
          return ask(wanted);
        };
        AudioContext.prototype.decodeAudioData = async () => { throw new Error("no such codec"); };"""
    )
    with served(Loudness(), ["a"], None) as address:
        page.goto(address)
        for _ in range(2):
            page.evaluate("document.getElementById('record').click()")
        assert page.evaluate("window.asked.length") == 1
        page.evaluate("window.asked.forEach((permit) => permit())")
        playwright.expect(page.locator("#record-text")).to_contain_text("Stop")
        page.click("#record")
        playwright.expect(page.locator("#status")).to_have_text("Cannot record: no such codec")
        playwright.expect(page.locator("#record-text")).to_have_text("Record")


def test_a_broken_file_is_reported_and_names_are_text(page, tmp_path):
    name = "<img src=x onerror=alert(1)>.wav"
    with served(Loudness(), ["a"], None) as address:
        page.goto(address)
        page.set_input_files("#file", tone(tmp_path, name))
        playwright.expect(page.locator("#name")).to_have_text(name)
        assert page.locator("img").count() == 0
        (tmp_path / "broken.wav").write_bytes(tone(tmp_path).read_bytes()[:1000])
        page.set_input_files("#file", tmp_path / "broken.wav")
        playwright.expect(page.locator("#status")).to_contain_text("broken.wav: ")
        assert page.locator("#status").get_attribute("class") == "wrong"
        page.set_input_files("#file", tone(tmp_path))
        playwright.expect(page.locator("#name")).to_have_text("tone.wav")
