"""The program that prepares data ahead of training: its report, its result, and user errors."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from configs.base import base
from input_pipeline import audio, prepare
from rann_jax import prepare as program
from tests.conftest import REPOSITORY

SECONDS = 2.0


@pytest.fixture
def sounds(tmp_path):
    """A folder with twelve clips of smooth noise in two classes, 2 s at 16 kHz; one clip is broken."""
    for number in range(12):
        path = tmp_path / "sounds" / ("cat" if number % 2 else "dog") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = np.cumsum(np.random.default_rng(number).uniform(-1, 1, int(SECONDS * 16000)))
        soundfile.write(path, 0.5 * smooth / np.abs(smooth).max(), 16000)
    (tmp_path / "sounds" / "cat" / "3.wav").write_bytes(b"not a sound")
    return tmp_path / "sounds"


def arguments(sounds, *more):
    return [
        "--config=configs/folder.py:num_classes=2",
        f"--config.data_dir={sounds}",
        f"--config.prepared_dir={sounds.parent / 'prepared'}",
        "--config.sample_rate=16000",
        "--config.prepare.max_failed_share=0.5",
        *more,
    ]


def test_a_dry_run_reports_clips_hours_and_bytes(sounds, capsys):
    assert program.main(arguments(sounds, "--dry-run")) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert [int(n) for n in re.findall(r"fold\d: (\d+) clips listed", told.out)] == [3, 3, 2, 2, 2]
    assert "of 12 clips prepared as a sample, 1 are unusable" in told.out
    assert "sound: 22 s, 2 s a clip\n" in told.out
    sizes = {kind: float(size) for kind, size in re.findall(r"^(pcm|flac): (\S+) kB", told.out, re.M)}
    assert sizes["flac"] < sizes["pcm"] < 1.5 * 11 * SECONDS * 16000 * 2 / 1000
    costs = re.findall(r"B, (\S+) s to prepare on \d+ cores, read at \d+ clips/s a core", told.out)
    assert len(costs) == 2
    assert all(0 < float(cost) < 60 for cost in costs)
    assert "free at " in told.out
    assert not (sounds.parent / "prepared").exists()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0652, "0.0652 s"),
        (59.94, "59.9 s"),
        (59.96, "0.999 min"),
        (90, "1.5 min"),
        (3596, "59.9 min"),
        (3598, "0.999 h"),
        (5_790.4 * 3600, "5,790 h"),
    ],
)
def test_durations_have_readable_units(seconds, told):
    assert program.duration(seconds) == told


def test_it_prepares_the_copy_that_training_uses(sounds, capsys):
    assert program.main(arguments(sounds, "--quiet")) == 0
    out = capsys.readouterr().out
    options = {"data_dir": str(sounds), "prepared_dir": str(sounds.parent / "prepared")}
    prepared = prepare("folder", sample_rate=16000, max_failed_share=0.5, progress=False, **options)
    assert out.splitlines()[-1] == str(prepared.folder)
    counts = re.findall(r"fold\d: (\d+) of (\d+) clips, fingerprint (\w{12})", out)
    assert sum(int(count) for count, _, _ in counts) == 11
    assert [split[2] for split in counts] == [prepared.fingerprint(f"fold{k}")[:12] for k in range(1, 6)]


@pytest.mark.fast
def test_a_finished_copy_is_only_described(sounds, capsys):
    assert program.main(arguments(sounds, "--quiet")) == 0
    out = capsys.readouterr().out
    copy = out.splitlines()[-1]
    assert program.main(arguments(sounds, "--quiet", f"--config.data_dir={copy}")) == 0
    assert capsys.readouterr().out == out
    assert program.main(arguments(sounds, "--dry-run", f"--config.data_dir={copy}")) == 2
    assert capsys.readouterr().err == (
        f"error: config.data_dir: {copy} is a finished copy: there is nothing to prepare\n"
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--config.prepare.storage=mp3", "--dry-run"], "config.prepare.storage='mp3'"),
        (["--config.data_dir=/absent", "--dry-run"], "config.data_dir: /absent does not exist"),
        (["--dry-runs"], "'--dry-runs' is not understood"),
        (["--config.sample_rate=0"], "config.sample_rate must be a whole number of at least 1, not 0"),
        (["--config.prepare.workers=-2", "--dry-run"], "config.prepare.workers must be a whole number"),
        (["--config.splits.train=fold99", "--dry-run"], "config.splits: unknown split 'fold99'"),
        (["--config.splits.train=fold99", "--quiet"], "config.splits: unknown split 'fold99'"),
        (["--config.prepare.nothing=1"], "config.prepare.nothing"),
    ],
)
def test_user_errors_are_one_line(sounds, capsys, more, says):
    assert program.main(arguments(sounds, *more)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert says in error


def test_the_longest_recording_is_configurable(sounds, capsys):
    assert base().prepare.max_seconds == audio.MAX_SECONDS
    assert program.main(arguments(sounds, "--quiet", "--config.prepare.max_seconds=1.5")) == 2
    assert "longer than config.prepare.max_seconds=1.5" in capsys.readouterr().err
    for key in ("0", "inf", "nan"):
        assert program.main(arguments(sounds, f"--config.prepare.max_seconds={key}")) == 2
        says = f"config.prepare.max_seconds must be a positive number, not {float(key)}\n"
        assert says in capsys.readouterr().err


@pytest.mark.fast
def test_a_missing_beam_is_one_line(sounds, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # as if it were not installed
    assert program.main(arguments(sounds, "--beam=--runner=DirectRunner")) == 2
    assert 'pip install -e ".[beam]"' in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs Apache Beam")
def test_beams_direct_runner_makes_the_same_copy(sounds):
    command = [sys.executable, "-m", "rann_jax.prepare", *arguments(sounds)]
    command += ["--beam=--runner=DirectRunner --direct_running_mode=in_memory --direct_num_workers=1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    options = {"data_dir": str(sounds), "prepared_dir": str(sounds.parent / "other")}
    other = prepare("folder", sample_rate=16000, max_failed_share=0.5, progress=False, **options)
    (made,) = (sounds.parent / "prepared" / "folder").glob("*/3.0.0")
    names = {path.name for path in other.folder.iterdir()}
    assert {path.name for path in made.iterdir()} == names
    for name in names - {"dataset_info.json", "metadata.json"}:
        assert (made / name).read_bytes() == (other.folder / name).read_bytes()


def test_clipped_clips_and_unused_splits_are_reported(sounds, capsys):
    loud = np.zeros(32000, np.float32)
    loud[:2000], loud[:100] = 0.5, 1.5
    soundfile.write(sounds / "dog" / "4.wav", loud, 16000, subtype="FLOAT")
    assert program.main(arguments(sounds, "--quiet", "--config.splits.train=fold1+fold2+fold3")) == 0
    told = capsys.readouterr()
    assert re.findall(r", (\d+) clips have clipped samples", told.out) == ["1"]
    assert "note: folder: prepared but not used by config.splits: fold4" in told.err
