"""The program that tags files: formats, broken files, exit codes, bounded memory."""

import csv
import functools
import json
import os
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from input_pipeline.datasets.quickstart import synthesise
from rann_jax import predict
from rann_jax.listener import Listener
from rann_jax.predict import main
from rann_jax.tag_output import SUFFIX, Choice, Events
from rann_jax.timeline import Judgement, Timeline
from tests.conftest import TINY_LABELS
from tests.tiny import write_workdir


@pytest.fixture(scope="module")
def load_once():
    once = functools.cache(predict.load)
    return lambda workdirs, *rest: once(tuple(workdirs), *rest)


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch, load_once):
    """Load each model, and compile its programs, only once for this file."""
    monkeypatch.setattr(predict, "load", load_once)


SMALL = ("--batch-size", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sounds of different formats, rates, channels and lengths; two hold no sound, two are truncated."""
    folder = tmp_path_factory.mktemp("sounds")
    wave = synthesise("bell", np.random.default_rng(0))
    soundfile.write(folder / "bell.wav", wave, 16000)
    soundfile.write(folder / "fast.flac", np.stack([wave, wave], axis=1), 44100)
    soundfile.write(folder / "short.ogg", wave[:160], 16000)
    soundfile.write(folder / "empty.wav", wave[:0], 16000)
    (folder / "torn.wav").write_bytes((folder / "bell.wav").read_bytes()[:20])
    for whole, part in (("bell.wav", "half.wav"), ("fast.flac", "half.flac")):
        content = (folder / whole).read_bytes()
        (folder / part).write_bytes(content[: len(content) // 2])
    (folder / "notes.txt").write_text("not sound")
    return folder


def test_json_lines_bad_files_and_exit_code(tiny_workdir, folder, capsys, load_once):
    assert main([str(tiny_workdir), str(folder), "--json", "--top", "2", "--quiet", *SMALL]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"].rsplit("/", 1)[-1] for row in rows] == ["bell.wav", "fast.flac", "short.ogg"]
    assert err.splitlines() == [
        f"not tagged: {folder}/empty.wav: no samples",
        next(line for line in err.splitlines() if "half.flac: " in line),
        next(line for line in err.splitlines() if "half.wav: truncated: its data has " in line),
        next(line for line in err.splitlines() if "torn.wav: not decodable" in line),
    ]
    wave, rate = soundfile.read(folder / "bell.wav", dtype="float32")
    tags = load_once([tiny_workdir], None, "latest", 2).tag(wave, rate)
    shown = {tag["label"]: tag["probability"] for tag in rows[0]["tags"]}
    assert list(shown) == list(tags)[:2]
    np.testing.assert_allclose(list(shown.values()), list(tags.values())[:2], atol=1e-5)
    assert "conflict" not in rows[0]


def test_files_for_other_programs(tiny_workdir, folder, tmp_path, capsys):
    names = [str(folder / "bell.wav"), str(folder / "fast.flac")]
    outputs = ["--csv", f"{tmp_path}/t.csv", "--audacity", f"{tmp_path}/a", "--raven", f"{tmp_path}/r"]
    assert main([str(tiny_workdir), *names, *outputs, "--top", "1", *SMALL]) == 0
    shown, progress = capsys.readouterr()
    assert names[0] in shown
    assert "\033" not in shown  # not a terminal
    assert " x real time" in progress
    assert "real time/s" not in progress  # "x real time" is a factor and has no unit
    table = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert {row["file"] for row in table} == set(names)
    for row in table:
        assert sum(float(p) for p in list(row.values())[3:]) == pytest.approx(1, abs=1e-4)
    starts = [float(line.split("\t")[0]) for line in (tmp_path / "a/bell.wav.txt").read_text().splitlines()]
    assert starts[0] == 0
    raven = (tmp_path / "r/bell.wav.selections.txt").read_text().splitlines()
    assert raven[0].startswith("Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)")
    assert len(raven) == len(starts) + 1


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
def test_a_kind_that_is_not_read_comes_with_a_way_to_convert_it(tmp_path, capsys):
    path = tmp_path / "song.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(400))
    assert main(["model", str(path), "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"not tagged: {path}: not decodable: .m4a is not read, but wav, flac, ")
    assert line.endswith("are: convert it with ffmpeg -i song.m4a song.wav")


@pytest.mark.fast
def test_hidden_files_in_folders_are_left_out(tmp_path):
    """On other file systems macOS writes ._NAME beside NAME, which holds no sound despite its name."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/.Trash").mkdir()
    names = ("a.wav", "._a.wav", "deep/b.FLAC", "deep/.c.wav", "deep/.Trash/d.wav", "deep/notes.txt")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert predict.find_files([tmp_path]) == [tmp_path / "a.wav", tmp_path / "deep/b.FLAC"]
    for name in ("._a.wav", "deep/.Trash/d.wav"):  # named explicitly
        assert predict.find_files([tmp_path / name]) == [tmp_path / name]
    assert predict.find_files([tmp_path / "deep/.Trash"]) == [tmp_path / "deep/.Trash/d.wav"]


@pytest.mark.fast
def test_linked_folders_are_searched_once(tmp_path):
    """As in preparation, sounds behind links are found, none twice, and loops end."""
    for name in ("disk/b.wav", "sounds/own/a.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    sounds = tmp_path / "sounds"
    for link, target in (("disk", tmp_path / "disk"), ("also", sounds / "own"), ("own/loop", sounds)):
        (sounds / link).symlink_to(target)
    assert predict.find_files([sounds]) == [sounds / "disk/b.wav", sounds / "own/a.wav"]
    assert predict.find_files([sounds / "disk"]) == [sounds / "disk/b.wav"]


@pytest.mark.fast
def test_events_join_neighbouring_windows():
    starts = np.array([0.0, 1.0, 2.0, 3.0])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.7, 0.3]])
    events = Events(("dog", "cat"), Choice(top=1, threshold=0.5))
    found = []
    for part in (slice(0, 2), slice(2, 4)):  # across the boundary of two parts
        found += events.add(Timeline(starts[part], starts[part] + 2, probabilities[part], ("dog", "cat")))
    assert [*found, *events.rest()] == [
        (0.0, 3.0, "dog", 0.9),
        (2.0, 4.0, "cat", 0.9),
        (3.0, 5.0, "dog", 0.7),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{w}", "/absent.wav"], "/absent.wav: no such file"),
        (["/absent", "{f}"], "/absent holds no checkpoints"),
        (["{w}", "{f}", "--hop", "9"], "--hop=9"),
        (
            ["{w}", "{f}", "--hop", "1e-6"],
            "--hop=1e-06: it must be between a sample (6.3e-05 s) and a window (0.5 s)",
        ),
        (["{w}", "{f}", "--hop", "nan"], "--hop=nan"),
        (["{w}", "{f}", "--top", "0"], "--top"),
        (["{w}", "{w}/checkpoints"], "{w}/checkpoints: no sound files in this folder, and no checkpoints"),
        (
            ["{w}", "{w}/checkpoints", "{f}"],
            "{w}/checkpoints: no sound files in this folder, and no checkpoints",
        ),
        (
            ["{w}", "{f}", "{s}"],
            "{s}: no sound files in this folder; it is a workdir: name workdirs before all files",
        ),
        (["{w}", "{f}", "--threshold", "nan"], "--threshold between 0 and 1"),
        (["{w}", "{f}", "--audacity", "labels"], "add --threshold=P"),
        (["{w}", "{f}", "--raven", "labels"], "add --threshold=P"),
        (["{w}", "{f}", "--csv", "{f}"], "it exists and is not a file: name a new file"),
        (["{w}", "{f}", "--picture", "{f}/bell.wav"], "--picture={f}/bell.wav: {f}/bell.wav is a file"),
        (
            ["{w}", "{f}", "--raven", "{f}/bell.wav/r", "--top", "1"],
            "r: {f}/bell.wav is a file: name a",
        ),
        (["{w}", "{f}", "--rule", "ds"], "--rule=ds fuses several models"),
        (["{w}", "{w}", "{f}"], "same workdir is named twice"),
        (["{w}", "{s}"], "only workdirs"),
        (["{f}/bell.wav", "{w}"], "{f}/bell.wav is a file: name the workdir first"),
        (["{w}", "{o}", "{f}"], "models 1 and 2 differ in their labels"),
    ],
    ids=[
        *(
            "file",
            "workdir",
            "hop",
            "short",
            "nan",
            "top",
            "folder",
            "folder before sounds",
            "workdir behind sounds",
            "threshold",
            "audacity",
            "raven",
            "csv",
            "a file for pictures",
            "below a file",
            "rule",
        ),
        *("twice", "workdirs", "the other way round", "labels"),
    ],
)
def test_wrong_use_is_one_line(arguments, says, tiny_workdir, second_workdir, other, folder, capsys):
    names = {"w": tiny_workdir, "s": second_workdir, "o": other, "f": folder}
    assert main([a.format(**names) for a in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says.format(**names) in lines[0]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model with the same classes in another order."""
    return write_workdir(tmp_path_factory.mktemp("other"), 2, TINY_LABELS[::-1])


def test_ensemble_by_hand(tiny_workdir, second_workdir, tmp_path, capsys):
    """The fused table is Dempster's rule, window by window, on the tables of the single models."""
    file = str(tmp_path / "four windows.wav")
    soundfile.write(file, np.random.default_rng(0).uniform(-0.5, 0.5, 20000), 16000)
    for i, models in enumerate(([tiny_workdir], [second_workdir], [tiny_workdir, second_workdir])):
        rule = ["--rule", "ds"] if len(models) > 1 else []
        more = ["--json", "--csv", f"{tmp_path}/{i}.csv", "--quiet", *SMALL]
        assert main([*map(str, models), file, *rule, *more]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    first, second, fused = (
        np.loadtxt(tmp_path / f"{i}.csv", delimiter=",", skiprows=1, usecols=range(1, n))
        for i, n in ((0, 13), (1, 13), (2, 14))
    )
    product = first[:, 2:] * second[:, 2:]
    agreement = product.sum(axis=1)
    np.testing.assert_allclose(fused[:, 2], 1 - agreement, atol=1e-5)
    np.testing.assert_allclose(fused[:, 3:], product / agreement[:, None], atol=1e-4)
    assert row["conflict"] == pytest.approx(np.mean(1 - agreement), abs=1e-5)
    heading = (tmp_path / "2.csv").read_text().splitlines()[0].split(",")
    assert heading == ["file", "start_seconds", "stop_seconds", "conflict", *TINY_LABELS]


class Loudness(Listener):
    """Scores how loud a window is; replaces a network where only the plumbing matters."""

    def __init__(self):
        self.labels, self.task = ("loud", "quiet"), "classification"
        self.sample_rate, self.crop_samples, self.batch_size = 8000, 800, 16

    def judge(self, windows):
        loud = np.abs(windows).max(axis=1)
        return Judgement(np.stack([loud, 1 - loud], axis=1))


@pytest.fixture
def loudness(monkeypatch):
    monkeypatch.setattr(predict, "load", lambda *_: Loudness())


def outputs(folder) -> list[str]:
    kinds = {"csv": "t.csv", "audacity": "a", "raven": "r", "picture": "p"}
    return [text for kind, name in kinds.items() for text in (f"--{kind}", str(folder / name))]


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
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


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
def test_a_table_is_written_through_a_link(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    (tmp_path / "table.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("table.csv")
    assert main(["model", str(tmp_path / "a.wav"), "--quiet", "--csv", str(tmp_path / "link.csv")]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text().startswith("file,")


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
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


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
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


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
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


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
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


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
def test_what_was_tagged_before_an_interruption_is_kept(tmp_path, monkeypatch, capsys):
    """It gets a name that marks it as partial; the interrupt comes after the second file's first windows."""
    for name, seconds in (("a.wav", 1), ("b.wav", 60)):
        soundfile.write(tmp_path / name, np.full(8000 * seconds, 0.5), 8000)
    table = tmp_path / "t.csv"
    table.write_text("of yesterday")
    judge, seen = Loudness.judge, []

    def interrupted(self, windows):
        seen.append(len(windows))
        if sum(seen) > 100:
            raise KeyboardInterrupt
        return judge(self, windows)

    monkeypatch.setattr(Loudness, "judge", interrupted)
    names = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert main(["model", *names, "--quiet", "--csv", str(table)]) == 130
    assert table.read_text() == "of yesterday"
    rows = list(csv.DictReader((tmp_path / "t.csv.partial").read_text().splitlines()))
    assert [row["file"] for row in rows] == [names[0]] * 19
    told = f"note: {table}.partial has the rows so far (files: 1); {table} is as before\ninterrupted\n"
    assert capsys.readouterr().err == told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav", "t.csv", "t.csv.partial"]

    seen[:] = [100]  # no file is finished yet, so nothing is kept
    assert main(["model", names[0], "--quiet", "--csv", str(tmp_path / "u.csv")]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not list(tmp_path.glob("*u.csv*"))


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
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


@pytest.mark.fast
@pytest.mark.usefixtures("loudness")
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
