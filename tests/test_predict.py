"""The program that tags files: which files, their tags, broken files, wrong use, exit codes."""

import csv
import functools
import json

import numpy as np
import pytest
import soundfile

from input_pipeline.datasets.quickstart import synthesise
from rann_jax import predict
from rann_jax.predict import main
from rann_jax.tagging.events import Choice, Events
from rann_jax.tagging.sources import find_files
from tests.conftest import TINY_LABELS
from tests.refusals import assert_one_error
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
WHOLE = ("--json", "--top", "10", "--quiet", *SMALL)


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
    tags = load_once([tiny_workdir], None, None, "latest", 2).tag(wave, rate)
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
def test_hidden_files_in_folders_are_left_out(tmp_path):
    """On other file systems macOS writes ._NAME beside NAME, which holds no sound despite its name."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/.Trash").mkdir()
    names = ("a.wav", "._a.wav", "deep/b.FLAC", "deep/.c.wav", "deep/.Trash/d.wav", "deep/notes.txt")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert list(find_files([tmp_path])) == [tmp_path / "a.wav", tmp_path / "deep/b.FLAC"]
    for name in ("._a.wav", "deep/.Trash/d.wav"):  # named explicitly
        assert list(find_files([tmp_path / name])) == [tmp_path / name]
    assert list(find_files([tmp_path / "deep/.Trash"])) == [tmp_path / "deep/.Trash/d.wav"]


@pytest.mark.fast
def test_sounds_that_cannot_be_decoded_are_not_passed_over(tmp_path):
    for name in ("a.aac", "b.WEBM", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list(find_files([tmp_path])) == [tmp_path / "a.aac", tmp_path / "b.WEBM"]


@pytest.mark.fast
def test_linked_folders_are_searched_once(tmp_path):
    """As in preparation, sounds behind links are found, none twice, and loops end."""
    for name in ("disk/b.wav", "sounds/own/a.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    sounds = tmp_path / "sounds"
    for link, target in (("disk", tmp_path / "disk"), ("also", sounds / "own"), ("own/loop", sounds)):
        (sounds / link).symlink_to(target)
    assert list(find_files([sounds])) == [sounds / "disk/b.wav", sounds / "own/a.wav"]
    assert list(find_files([sounds / "disk"])) == [sounds / "disk/b.wav"]


@pytest.mark.fast
def test_events_join_neighbouring_windows():
    starts = np.array([0.0, 1.0, 2.0, 3.0])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.7, 0.3]])
    events = Events(("dog", "cat"), Choice(top=1, threshold=0.5))
    found = []
    for part in (slice(0, 2), slice(2, 4)):  # across the boundary of two parts
        found += events.add(starts[part], starts[part] + 2, probabilities[part])
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
        (["{w}", "{f}", "--weights", "1"], "--weights=1 fuses several models"),
        (
            ["{w}", "{s}", "{f}", "--rule", "ds", "--weights", "1,2"],
            "--weights=1,2: only the rule wa takes weights, not ds",
        ),
        (["{w}", "{s}", "{f}", "--weights", "1,x"], "--weights=1,x: give 2 numbers, one per model"),
        (["{w}", "{w}", "{f}"], "the same run is named twice, as {w} and {w}: leave one out"),
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
        *("weights of one", "rule without weights", "no weights"),
        *("twice", "workdirs", "the other way round", "labels"),
    ],
)
def test_wrong_use_is_one_line(arguments, says, tiny_workdir, second_workdir, other, folder, capsys):
    names = {"w": tiny_workdir, "s": second_workdir, "o": other, "f": folder}
    assert main([a.format(**names) for a in arguments]) == 2
    assert_one_error(capsys.readouterr().err, says.format(**names))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model with the same classes in another order."""
    return write_workdir(tmp_path_factory.mktemp("other"), 2, TINY_LABELS[::-1])


def test_weights_by_hand(tiny_workdir, second_workdir, folder, capsys):
    said = []
    for models in ([tiny_workdir], [second_workdir], [tiny_workdir, second_workdir, "--weights", "1,3"]):
        assert main([*map(str, models[:2]), f"{folder}/bell.wav", *map(str, models[2:]), *WHOLE]) == 0
        tags = json.loads(capsys.readouterr().out)["tags"]
        said.append(np.array([tag["probability"] for tag in sorted(tags, key=lambda tag: tag["label"])]))
    np.testing.assert_allclose(said[2], 0.25 * said[0] + 0.75 * said[1], atol=1e-5)


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
