"""The program that draws a recording: its axes, and its error messages."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from rann_jax.features.__main__ import main
from rann_jax.features.plot import draw
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A file with half a second of A4 in stereo at 8 kHz."""
    file = tmp_path_factory.mktemp("sound") / "a4.wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)
    soundfile.write(file, np.stack([tone, tone], axis=1), 8000)
    return file


def test_axes_are_labelled_and_show_the_tone():
    y = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
    figure = draw(y, 8000, "A4")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    assert len(panels) == 8
    assert {axes.get_xlabel() for axes in panels.values()} == {"seconds"}
    labels = {name: axes.get_ylabel() for name, axes in panels.items()}
    assert labels["Log-mel spectrogram"] == "frequency (Hz)"
    assert labels["Tempogram"] == "tempo (BPM)"
    assert [tick.get_text() for tick in panels["Chromagram"].get_yticklabels()][9] == "A"
    assert [tick.get_text() for tick in panels["Constant-Q transform"].get_yticklabels()][3] == "C4"

    def loudest_row(name):
        return int(np.argmax(np.mean(panels[name].images[0].get_array(), axis=1)))

    assert loudest_row("Chromagram") == 9
    # 440 Hz is nine semitones above C4, and a semitone is two rows.
    assert loudest_row("Constant-Q transform") == 3 * 24 + 18


def test_writes_a_picture(recording, tmp_path, capsys):
    """File names may contain `$`, which is not parsed as a formula, and bytes that are not UTF-8."""
    file, out = (tmp_path / os.fsdecode(name) for name in (b"$_$ caf\xe9.wav", b"caf\xe9.png"))
    file.symlink_to(recording)
    assert main([str(file), "--out", str(out), "--seconds", "0.25"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{tmp_path}/caf\\xe9.png\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/none.wav"], "none.wav: no such file"),
        (["{folder}"], "not a file"),
        (["{folder}/text.wav"], "not a sound file"),
        (["{folder}/a.m4a"], ".m4a is not read, but wav, flac, ogg, opus, mp3 and aiff are: convert it"),
        (["{folder}/a.raw"], "a.raw: headerless sound gives no sample rate: convert"),
        (["{folder}/a4.wav", "--start", "3"], "it lasts 0.5 s"),
        (["{folder}/a4.wav", "--start", "nan"], "--start=nan: it must be finite"),
        (["{folder}/a4.wav", "--start", "inf"], "--start=inf: it must be finite"),
        (["{folder}/a4.wav", "--seconds", "0"], "--seconds=0: it must be finite and positive"),
        (["{folder}/a4.wav", "--seconds", "inf"], "--seconds=inf: it must be finite"),
        (["{folder}/a4.wav", "--seconds", "nan"], "--seconds=nan: it must be finite"),
        (["{folder}/a4.wav", "--out", "{folder}/a.xyz"], "picture format"),
        (["{folder}/a4.wav", "--out", "{folder}/no/a.png"], "there is no folder"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(recording, arguments, message, capsys):
    folder = recording.parent
    (folder / "text.wav").write_text("not sound")
    (folder / "a.raw").write_bytes(bytes(8000))
    (folder / "a.m4a").write_bytes(bytes(400))
    assert message in refused(main, capsys, *[part.format(folder=folder) for part in arguments])


def test_a_failed_write_keeps_the_previous_picture(recording, tmp_path, monkeypatch, capsys):
    """On a full disk, half a picture would otherwise replace it."""
    out = tmp_path / "features.png"
    out.write_bytes(b"the last one")

    class Full:
        def savefig(self, file, **_):
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))

    monkeypatch.setattr("rann_jax.features.__main__.draw", lambda *_: Full())
    assert main([str(recording), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out}: No space left on device\n"
    assert out.read_bytes() == b"the last one"
    assert list(tmp_path.iterdir()) == [out]


def test_help_names_every_feature():
    run = subprocess.run(
        [sys.executable, "-m", "rann_jax.features", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("log-mel", "scalogram", "constant-Q", "MFCC, GFCC", "chromagram", "tempogram"):
        assert name in run.stdout
