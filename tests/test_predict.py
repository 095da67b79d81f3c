"""The program that tags files: formats, broken files, exit codes, bounded memory."""

import csv
import json
import tracemalloc

import numpy as np
import pytest
import soundfile

import rann_jax
from input_pipeline import audio
from input_pipeline.datasets.quickstart import synthesise
from rann_jax.predict import main
from rann_jax.tag_output import Tagged
from rann_jax.tagger import Timeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three sounds of different formats, rates, channels and lengths, and two that are none."""
    folder = tmp_path_factory.mktemp("sounds")
    wave = synthesise("bell", np.random.default_rng(0))
    soundfile.write(folder / "bell.wav", wave, 16000)
    soundfile.write(folder / "fast.flac", np.stack([wave, wave], axis=1), 44100)
    soundfile.write(folder / "short.ogg", wave[:160], 16000)
    soundfile.write(folder / "empty.wav", wave[:0], 16000)
    (folder / "torn.wav").write_bytes((folder / "bell.wav").read_bytes()[:20])
    (folder / "notes.txt").write_text("not sound")
    return folder


def test_json_lines_bad_files_and_exit_code(tiny_workdir, folder, capsys):
    assert main([str(tiny_workdir), str(folder), "--json", "--top", "2", "--quiet"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"].rsplit("/", 1)[-1] for row in rows] == ["bell.wav", "fast.flac", "short.ogg"]
    assert err.splitlines() == [
        f"not tagged: {folder}/empty.wav: no samples",
        next(line for line in err.splitlines() if "torn.wav: not decodable" in line),
    ]
    wave, rate = soundfile.read(folder / "bell.wav", dtype="float32")
    mean = rann_jax.Tagger.load(tiny_workdir).timeline(wave, rate).probabilities.mean(0)
    shown = [tag["probability"] for tag in rows[0]["tags"]]
    np.testing.assert_allclose(shown, np.sort(mean)[::-1][:2], atol=1e-5)


def test_files_for_other_programs(tiny_workdir, folder, tmp_path, capsys):
    names = [str(folder / "bell.wav"), str(folder / "fast.flac")]
    outputs = ["--csv", f"{tmp_path}/t.csv", "--audacity", f"{tmp_path}/a", "--raven", f"{tmp_path}/r"]
    assert main([str(tiny_workdir), *names, *outputs, "--top", "1"]) == 0
    shown, progress = capsys.readouterr()
    assert names[0] in shown
    assert "\033" not in shown  # not a terminal
    assert "x real time" in progress
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
def test_events_join_neighbouring_windows():
    starts = np.array([0.0, 1.0, 2.0, 3.0])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.7, 0.3]])
    tagged = Tagged(None, Timeline(starts, starts + 2, probabilities, ("dog", "cat")))
    assert list(tagged.events(top=1, threshold=0.5)) == [
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
        (["{w}", "{f}", "--top", "0"], "--top"),
        (["{w}", "{w}"], "no sound files"),
    ],
    ids=["file", "workdir", "hop", "top", "folder"],
)
def test_wrong_use_is_one_line(arguments, says, tiny_workdir, folder, capsys):
    assert main([a.format(w=tiny_workdir, f=folder) for a in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]


@pytest.mark.fast
def test_long_files_are_read_in_bounded_memory(tmp_path):
    """Twenty minutes would be 77 MB as float32 at 16 kHz."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(16000 * 1200, np.int16), 16000)
    tracemalloc.start()
    with audio.stream(path) as sound:
        heard = sum(len(block) for block in sound.blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heard == 16000 * 1200
    assert peak < 8e6
