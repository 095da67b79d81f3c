"""Run the tutorials: every command and every line of Python on a page, in order, as a reader would.

Each page gets a folder that looks like a checkout, with real sounds under the names that the pages use, and
its own home folder. The tests run the page's own text, except that ADDED and INSTEAD below make the work
small and that `pip install` is left out.
"""

import ast
import csv
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest
import soundfile

from rann_jax import models
from rann_jax.interop import to_state_dict
from tests.conftest import REPOSITORY, launched

pytestmark = pytest.mark.usefixtures("quickly_compiled", "one_device")

# The pages that the index of docs/ lists before the reference.
INDEX = (REPOSITORY / "docs" / "README.md").read_text().partition("Reference:")[0]
TUTORIALS = [REPOSITORY / "docs" / name for name in re.findall(r"\]\((\w+\.md)\)", INDEX)]

# Part of a command -> what is appended to commands that contain it.
SHORT = "--config.total_steps=2 --config.batch_size=8 --config.eval.batch_size=8 --quiet"
# An image with few bins and frames, and one block per stage.
COARSE = "--config.feature.n_bins=16 --config.feature.frames_per_second=32 --config.model.blocks_per_stage=1"
NARROW = "--config.model.width=16"
ADDED = {
    "rann_jax.main --config": SHORT,
    "rann_jax.crossval": f"{SHORT} --bootstrap 20",
    "configs/folder.py": COARSE,
    "configs/quickstart.py": f"{COARSE} --config.dataset.train_clips=20 --config.dataset.test_clips=10",
    "configs/esc50.py": f"{COARSE} --config.model.name=rann-4x4-1",
    "configs/finetune.py": NARROW,
    "configs/audioset.py:model=cnn14": NARROW,
    "rann_jax.compile": f"{COARSE} --config.model.name=rann-8x4-1",
    "rann_jax.serve": "--port 0 --batch-size 1",  # compiles one program, not one for each batch size
}
# Part of a command -> its replacement. Compiling for a TPU would need the TPU compiler and take minutes.
INSTEAD = {
    "--features log_mel,mfcc,cqt --folds 1-5": "--features log_mel --folds 1",
    "--topology v5e:4x4 --config.batch_size=128": "--cpu-devices 8 --config.batch_size=8",
}
# Named like the published file, but CNN14 with a sixteenth of its channels and random weights.
WEIGHTS = "Cnn14_mAP=0.431.pth"


@pytest.fixture
def checkout(data_dir, tmp_path, monkeypatch, main_here) -> Path:
    """A folder with links to the code and the files that the pages name; it is the current folder."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("rann_jax", "input_pipeline", "configs", "launch"):
        (folder / name).symlink_to(REPOSITORY / name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("XLA_FLAGS", launched()["XLA_FLAGS"])
    # Cells of a cross-validation run in this process too; tests/test_crossval.py launches one.
    monkeypatch.setattr("rann_jax.crossval.child.run", lambda command: main_here(command[3:]))
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # building its font list is slow
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    esc10 = data_dir / "esc10_44k1"
    clips = rows(esc10)
    write_esc(folder / "ESC10", esc10, rows_of_all_classes(clips, each=2))
    write_esc(
        folder / "ESC50", data_dir / "esc50_16k", rows_of_all_classes(rows(data_dir / "esc50_16k"), each=1)
    )
    for row in clips[:5] + [row for row in clips if row["category"] == "rain"][:5]:
        place = folder / "DIR" / row["category"]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(esc10 / "audio" / row["filename"], place)
    first = esc10 / "audio" / clips[0]["filename"]
    wave, rate = soundfile.read(first)
    soundfile.write("recording.wav", wave, rate)
    soundfile.write("night.flac", wave, rate)
    shutil.copy(first, "dog.ogg")
    Path("recordings").mkdir()
    for row in clips[5:7]:
        shutil.copy(esc10 / "audio" / row["filename"], "recordings")
    return folder


def rows(source: Path) -> list[dict[str, str]]:
    with (source / "meta.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rows_of_all_classes(table: list[dict[str, str]], each: int) -> list[dict[str, str]]:
    """Return `each` clips of every class, rotating folds between classes so that no fold is empty."""
    chosen = []
    for number, target in enumerate(sorted({int(row["target"]) for row in table})):
        of_class = [row for row in table if int(row["target"]) == target]
        for k in range(each):
            fold = (number + k) % 5 + 1
            chosen.append(next(row for row in of_class if int(row["fold"]) == fold))
    return chosen


def write_esc(folder: Path, source: Path, chosen: list[dict[str, str]]) -> None:
    """Write a part of ESC-50 in the official layout."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    for row in chosen:
        shutil.copy(source / "audio" / row["filename"], folder / "audio")
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, chosen[0])
        writer.writeheader()
        writer.writerows(chosen)


def write_weights(data_dir: Path) -> None:
    """Write a file in the format that PANNs' authors publish, with the table of class names beside it."""
    torch = pytest.importorskip("torch", reason="the PyTorch oracles are the extra `parity`")
    network = models.create("cnn14", num_classes=527, width=16)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64), np.float32))
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: rng.uniform(0, 0.1, leaf.shape).astype(np.float32), shapes)
    entries = {name: torch.tensor(array) for name, array in to_state_dict(weights, "cnn14").items()}
    torch.save({"iteration": 600000, "model": entries}, WEIGHTS)
    shutil.copy(data_dir / "audioset_meta" / "class_labels_indices.csv", ".")


def small(command: str) -> str:
    for part, other in INSTEAD.items():
        command = command.replace(part, other)
    return " ".join([command, *(words for part, words in ADDED.items() if part in command)])


class Reader:
    """Runs the commands and the Python code of a page."""

    def __init__(self, main: Callable[[Sequence[str]], int]):
        self.main = main
        self.server: subprocess.Popen | None = None
        self.address = ""

    def command(self, line: str) -> None:
        words = shlex.split(small(line))
        if words[0] != "curl":
            self.stop()
        if words[:2] == ["pip", "install"]:
            return
        if words[0] == "curl":
            self.post(words)
        elif words[:3] == ["python", "-m", "rann_jax.serve"]:
            self.serve(words)
        elif words[:3] == ["python", "-m", "rann_jax.main"]:
            assert self.main(words[3:]) == 0, line
        elif words[:2] == ["python", "-m"]:
            assert program(words[2])(words[3:]) == 0, line
        else:
            result = subprocess.run(
                ["bash", "-c", small(line)],
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
            )
            assert result.returncode == 0, (line, result.stderr)

    def serve(self, words: list[str]) -> None:
        self.server = subprocess.Popen(
            [sys.executable, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.address = self.server.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), self.server.communicate()
        with urllib.request.urlopen(self.address, timeout=900) as answer:
            assert "<html" in answer.read().decode()

    def post(self, words: list[str]) -> None:
        """Send what `curl --data-binary @FILE URL` sends, but to the server's own port."""
        _, flag, file, url = words
        assert flag == "--data-binary"
        there = url.replace("http://127.0.0.1:8000", self.address)
        assert there != url
        with urllib.request.urlopen(there, Path(file.removeprefix("@")).read_bytes(), timeout=900) as answer:
            tags = json.load(answer)["tags"]
        assert len(tags) == int(url.partition("top=")[2])

    def stop(self) -> None:
        """Stop the server as Ctrl-C does."""
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)
            _, errors = self.server.communicate(timeout=60)
            assert self.server.returncode == 0, errors
            self.server = None

    def python(self, code: str) -> None:
        """Run the statements of a block; expressions must have finite values, or none as calls that write.

        Readers have not made JAX strict, and optax's Adam mixes types.
        """
        self.stop()
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            self.statements(code)

    def statements(self, code: str) -> None:
        names: dict = {}
        for statement in ast.parse(code).body:
            if isinstance(statement, ast.Expr):
                shown = eval(compile(ast.Expression(statement.value), "a page", "eval"), names)
                shown = list(shown.values()) if isinstance(shown, dict) else shown
                assert shown is None or np.all(np.isfinite(shown))
            else:
                exec(compile(ast.Module([statement], []), "a page", "exec"), names)


def program(name: str):
    module = importlib.import_module(name)
    return module.main if hasattr(module, "main") else importlib.import_module(f"{name}.__main__").main


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of each command line and each block of Python, in order."""
    for language, text in re.findall(
        r"^```(sh|python)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        if language == "sh":
            yield from (("sh", line) for line in text.splitlines() if line)
        else:
            yield "python", text


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page, checkout, data_dir, main_here):
    if WEIGHTS in page.read_text():
        write_weights(data_dir)
    reader = Reader(main_here)
    try:
        for language, text in steps(page):
            reader.command(text) if language == "sh" else reader.python(text)
        reader.stop()
    finally:
        if reader.server is not None:
            reader.server.kill()
            reader.server.communicate()
    promised = re.findall(r"`(runs/\S+?)`", page.read_text())
    assert all(Path(name).exists() for name in promised), promised


def test_every_rule_that_shrinks_a_command_is_used():
    """No rule is left over from a command that no page contains any more."""
    commands = [text for page in TUTORIALS for language, text in steps(page) if language == "sh"]
    for part in (*ADDED, *INSTEAD):
        assert any(part in command for command in commands), part
