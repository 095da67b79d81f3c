"""Tagging with a listener in place of the network: outputs are complete or absent, in bounded memory."""

import csv
import json
import os
import resource
import shutil
import signal
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from rann_jax import predict
from rann_jax.predict import main
from rann_jax.tagging.formats import SUFFIX
from rann_jax.tagging.timeline import WindowProbabilities
from tests.fake_models import Loudness

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _loudness(monkeypatch):
    monkeypatch.setattr(predict, "load", lambda *_: Loudness())


def outputs(folder) -> list[str]:
    kinds = {"csv": "t.csv", "audacity": "a", "raven": "r", "picture": "p"}
    return [text for kind, name in kinds.items() for text in (f"--{kind}", str(folder / name))]


def test_a_loud_lossy_file_is_tagged(tmp_path, capsys):
    """Decoders of lossy formats exceed full scale where the music was loud; only floats are integers."""
    path = tmp_path / "loud.ogg"
    soundfile.write(path, 1.5 * np.sign(np.sin(np.arange(8000) / 20)), 8000)
    decoded, _ = soundfile.read(path)
    assert np.mean(np.abs(decoded) > 1) > 0.5
    assert main(["model", str(path), "--quiet"]) == 0
    assert "loud.ogg  (1.00 s)" in capsys.readouterr().out


class Everything(Loudness):
    """More classes than tags are shown, all of them certain."""

    labels, task = tuple("abcdefgh"), "tagging"

    def infer(self, windows):
        return WindowProbabilities(np.full((len(windows), len(self.labels)), 0.9, np.float32))


@pytest.mark.parametrize(
    ("options", "tags", "events"),
    [
        (["--threshold", "0.5"], 5, 8),
        (["--top", "3"], 3, 3),
        (["--top", "7", "--threshold", "0.5"], 7, 7),
        (["--threshold", "0.95"], 0, 0),
    ],
)
def test_events_are_not_limited_as_the_tags_shown_are(options, tags, events, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load", lambda *_: Everything())
    path = tmp_path / "a.wav"
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    soundfile.write(path, wave, 8000)
    written = [*options, "--json", "--quiet", "--audacity", str(tmp_path / "out")]
    assert main(["model", str(path), *written]) == 0
    assert len(json.loads(capsys.readouterr().out)["tags"]) == tags
    assert len((tmp_path / "out/a.wav.txt").read_text().splitlines()) == events
    if "--top" not in options:
        assert len(Everything().timeline(wave, 8000).events(float(options[1]))) == events


def test_a_longer_file_takes_no_more_memory(tmp_path, capsys):
    """With all outputs, a file four times as long has about the same peak of Python and NumPy allocations."""
    rng, peaks = np.random.default_rng(0), []
    for minutes in (2, 8):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(np.repeat(rng.uniform(-0.9, 0.9, 600), 800))
        tracemalloc.start()
        assert main(["model", str(path), "--top", "1", "--quiet", *outputs(tmp_path / str(minutes))]) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0], peaks
    with (tmp_path / "8" / "t.csv").open() as file:
        assert sum(1 for _ in file) == 1 + 8 * 60 * 20 - 1  # a header, and a window every 50 ms


def test_a_table_is_written_through_a_link(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    (tmp_path / "table.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("table.csv")
    assert main(["model", str(tmp_path / "a.wav"), "--quiet", "--csv", str(tmp_path / "link.csv")]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text().startswith("file,")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--csv", "a.wav", "b.wav"], "--csv a.wav: this is the name of a recording"),
        (["a.wav", "--csv", "a.wav"], "--csv a.wav: this is the name of a recording"),
        (["--csv", "a.MP4", "a.wav"], "--csv a.MP4: this is the name of a recording"),
        (["a.wav", "--csv", "link.csv"], "--csv link.csv: this is the name of a recording"),
        (["sound", "--csv", "sound"], "--csv sound: it is one of the files to be tagged"),
        (["sound", "--csv", "folder/../sound"], "--csv folder/../sound: it is one of the files to be tagged"),
    ],
)
def test_a_table_replaces_no_recording(arguments, says, tmp_path, monkeypatch, capsys):
    """With `--csv *.wav` the shell passes the first recording as the table."""
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(800), 8000)
    shutil.copy(tmp_path / "a.wav", tmp_path / "sound")
    (tmp_path / "link.csv").symlink_to("a.wav")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert main(["model", *arguments, "--quiet"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {says}: name a")
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_the_longest_names(tmp_path, capsys):
    """Output names of 255 bytes work; a longer one is refused before any sound is processed."""
    names = {kind: "ü" * ((251 - len(suffix)) // 2) + ".wav" for kind, suffix in SUFFIX.items()}
    names["csv"] = "short.wav"
    for kind, name in names.items():
        soundfile.write(tmp_path / name, np.full(1600, 0.5), 8000)
        out = tmp_path / kind / ("n" * 251 + ".csv" if kind == "csv" else "")
        assert main(["model", str(tmp_path / name), "--top", "1", "--quiet", f"--{kind}", str(out)]) == 0
        (written,) = (tmp_path / kind).iterdir()
        assert 254 <= len(os.fsencode(written.name)) <= 255
    capsys.readouterr()
    sounds = [str(tmp_path / name) for name in ("short.wav", names["audacity"])]
    assert main(["model", *sounds, "--top", "1", *outputs(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: --raven: the name of the output for ")
    assert told.err.endswith(
        "would have 265 bytes, more than 255: give the sound a shorter name, or leave --raven out\n"
    )
    assert not (tmp_path / "out").exists()
    assert main(["model", sounds[0], "--csv", str(tmp_path / ("n" * 252 + ".csv"))]) == 2
    assert capsys.readouterr().err.endswith("n.csv: File name too long\n")


def test_outputs_mirror_the_sub_folders_of_a_named_folder(tmp_path, monkeypatch, capsys):
    """Recorders name files by time, so that several in one folder have files of the same name."""
    names = ("12.wav", "east/12.wav", "west/deep/12.wav", "west/12.wav")
    for name in (*names, "linked/13.wav"):
        path = tmp_path / "in" / name if "linked" not in name else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(1600, 0.5), 8000)
    (tmp_path / "in/link").symlink_to(tmp_path / "linked")
    monkeypatch.chdir(tmp_path / "in")
    expected = {"12.wav", "east/12.wav", "west/deep/12.wav", "west/12.wav", "link/13.wav"}
    for source in (str(tmp_path / "in"), ".", "../in/west/.."):
        out = tmp_path / "out" / str(len(source))
        assert main(["model", source, "--top", "1", "--quiet", *outputs(out)]) == 0
        for kind, suffix in {"a": ".txt", "r": ".selections.txt", "p": ".png"}.items():
            written = {
                str(path.relative_to(out / kind)) for path in (out / kind).rglob("*") if path.is_file()
            }
            assert written == {name + suffix for name in expected}
    capsys.readouterr()
    # A file that is also named by itself is written once, where it was named first.
    out = ["--raven", str(tmp_path / "r"), "--top", "1", "--quiet"]
    assert main(["model", "west/deep/12.wav", "west", *out]) == 2
    told = "error: west/deep/12.wav and west/12.wav have the same file name: tag them into two folders\n"
    assert capsys.readouterr().err == told
    assert main(["model", "west", "west/deep/12.wav", *out]) == 0
    assert (tmp_path / "r/deep/12.wav.selections.txt").is_file()


def test_outputs_that_would_be_in_each_others_way_are_refused_at_once(tmp_path, capsys):
    for name in ("12.wav", "12.wav.txt/13.wav", "east/12.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.full(1600, 0.5), 8000)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/east").write_text("a file")
    source, out = str(tmp_path), str(tmp_path / "out")
    more = [out, "--top", "1", "--quiet"]
    assert main(["model", source, "--raven", *more]) == 2
    assert f"error: --raven={out}/east: {out}/east is a file: name a folder" in capsys.readouterr().err
    (tmp_path / "out/east").unlink()
    assert main(["model", source, "--audacity", *more]) == 2
    assert capsys.readouterr().err == (
        f"error: --audacity: the output for {source}/12.wav would have the name of the folder for "
        f"{source}/12.wav.txt/13.wav: tag them into two folders\n"
    )
    assert not any((tmp_path / "out").iterdir())


def test_a_kind_that_is_not_read_comes_with_a_way_to_convert_it(tmp_path, capsys):
    path = tmp_path / "song.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(400))
    assert main(["model", str(path), "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"not tagged: {path}: not decodable: .m4a is not read, but wav, flac, ")
    assert line.endswith("are: convert it with ffmpeg -i song.m4a song.wav")


@pytest.mark.parametrize("rate", [1, 999, 768_001])
def test_an_impossible_rate_is_refused(rate, tmp_path, capsys):
    """At a claimed rate of 1 Hz, 70,000 samples are 19 hours, and 8000 times as many after resampling."""
    soundfile.write(tmp_path / "odd.wav", np.zeros(70_000, np.int16), rate)
    tracemalloc.start()
    assert main(["model", str(tmp_path / "odd.wav"), "--quiet"]) == 1
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    reason = f"its rate is {rate} Hz, not between 1000 and 768000"
    assert capsys.readouterr().err == f"not tagged: {tmp_path}/odd.wav: {reason}\n"


def test_a_broken_file_leaves_no_output(tmp_path, capsys):
    """Reading stops at the first sample that is not finite, and the file's rows are removed again."""
    wave = np.full(8000 * 60, 0.5, np.float32)
    soundfile.write(tmp_path / "good.wav", wave[:1600], 8000, subtype="FLOAT")
    wave[-1] = np.nan
    soundfile.write(tmp_path / "broken.wav", wave, 8000, subtype="FLOAT")
    names = [str(tmp_path / name) for name in ("broken.wav", "good.wav")]
    assert main(["model", *names, "--top", "1", "--quiet", *outputs(tmp_path / "out")]) == 1
    assert "broken.wav: NaN" in capsys.readouterr().err
    written = sorted(path.name for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["good.wav.png", "good.wav.selections.txt", "good.wav.txt", "t.csv"]
    rows = list(csv.DictReader((tmp_path / "out/t.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [names[1]] * 3
    assert {row["loud"] for row in rows} == {"0.500000"}


@pytest.fixture
def foreground():
    """Set the signal handlers of a foreground program; a SIGTERM that nobody handles fails the test."""

    def unheard(*_):
        raise AssertionError("SIGTERM is not handled")

    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: unheard}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == wanted


def code_of(arguments) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_what_was_tagged_before_an_interruption_is_kept(number, code, says, tmp_path, monkeypatch, capsys):
    """It gets a name that marks it as partial; the signal comes after the second file's first windows."""
    for name, seconds in (("a.wav", 1), ("b.wav", 60)):
        soundfile.write(tmp_path / name, np.full(8000 * seconds, 0.5), 8000)
    table = tmp_path / "t.csv"
    table.write_text("of yesterday")
    infer, seen = Loudness.infer, []

    def interrupted(self, windows):
        seen.append(len(windows))
        if sum(seen) > 100:
            signal.raise_signal(number)
        return infer(self, windows)

    monkeypatch.setattr(Loudness, "infer", interrupted)
    names = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    more = [text for kind in ("audacity", "raven") for text in (f"--{kind}", str(tmp_path / kind))]
    assert code_of(["model", *names, "--quiet", "--csv", str(table), "--top", "1", *more]) == code
    assert table.read_text() == "of yesterday"
    rows = list(csv.DictReader((tmp_path / "t.csv.partial").read_text().splitlines()))
    assert [row["file"] for row in rows] == [names[0]] * 19
    told = f"note: {table}.partial has the rows so far (files: 1); {table} is as before\n{says}"
    assert capsys.readouterr().err == told
    written = {"a.wav.txt", "a.wav.selections.txt", "t.csv", "t.csv.partial"}
    assert {path.name for path in tmp_path.rglob("*.*")} == {"a.wav", "b.wav", *written}

    seen[:] = [100]  # no file is finished yet, so nothing is kept
    assert code_of(["model", names[0], "--quiet", "--csv", str(tmp_path / "u.csv")]) == code
    assert capsys.readouterr().err == says
    assert not list(tmp_path.glob("*u.csv*"))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_name_that_is_not_utf8(as_json, tmp_path, capsys):
    """Old archives have such names: the file is tagged, and the output escapes the odd bytes of its name."""
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.5), 8000)
    for name in (b"caf\xe9.wav", b"z.wav"):
        shutil.copy(tmp_path / "a.wav", tmp_path / os.fsdecode(name))
    more = ["--json"] if as_json else []
    assert main(["model", str(tmp_path), "--top", "1", *more, *outputs(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [json.loads(x)["file"] if as_json else x.partition("  (")[0] for x in lines if x[0] != " "]
    assert named == [f"{tmp_path}/{name}" for name in ("a.wav", "caf\\xe9.wav", "z.wav")]
    rows = list(csv.DictReader((tmp_path / "out/t.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [name for name in named for _ in range(3)]
    assert (tmp_path / "out/a" / os.fsdecode(b"caf\xe9.wav.txt")).exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_closed_pipe_ends_printing(wanted, tmp_path, monkeypatch):
    """As with `| head -1`: with other outputs, these are completed; without, the program ends."""
    names = [str(tmp_path / f"{name}.wav") for name in "abc"]
    for name in names:
        soundfile.write(name, np.full(1600, 0.5), 8000)
    heard, tag_file = [], predict.tag_file
    monkeypatch.setattr(predict, "tag_file", lambda *rest: heard.append(rest) or tag_file(*rest))
    more = ["--csv", str(tmp_path / "t.csv")] if wanted else []
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as nobody, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", nobody)
        assert main(["model", *names, "--quiet", *more]) == 0
    assert len(heard) == (3 if wanted else 1)
    if wanted:
        rows = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
        assert [row["file"] for row in rows] == [name for name in names for _ in range(3)]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_full_disk_under_stdout_is_named(wanted, tmp_path, monkeypatch, capsys):
    """As with `> tags.txt` on a full disk: the table, which is elsewhere, is not blamed."""
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.5), 8000)
    more = ["--csv", str(tmp_path / "t.csv")] if wanted else []
    largest, before = 100_000, resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "tags.txt").write_bytes(bytes(largest))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        # Closing the file writes what is left in its buffer, as Python does to stdout when it ends.
        with (tmp_path / "tags.txt").open("a") as full, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full)
            assert main(["model", str(tmp_path / "a.wav"), "--quiet", *more]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err.splitlines()[-1] == "error: stdout: File too large"
