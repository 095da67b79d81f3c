"""README's code passes a type checker in a reader's project, which sees the packages as installed ones."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()

# What README shows in words, and what its code could do with the results.
ALSO = """
import numpy as np

image = features.front_end("log_mel", sample_rate=16000, seconds=1.0)(np.zeros(16000, np.float32))
image.shape
features.front_end("wavegram")([0.0, 1.0])["waveform"].shape
features.mfcc(np.zeros(16000, np.float32), n_mfcc=13)
features.delta([[1.0, 2.0]])
models.create("cnn14", num_classes=3).width
models.create("rann-8x4-6", num_classes=3).embed
metrics.average_precision([[1], [0]], [[0.9], [0.8]])
metrics.accuracy(jnp.eye(2), jnp.eye(2))
fusion.conflict(masses=[[0.7, 0.3], [0.6, 0.4]])
fusion.dempster_shafer(masses=np.ones((2, 1)))

import configs.base
from input_pipeline import audio

audio.decode("dog.ogg").samples.shape
reveal_type(image)
"""


def code(heading: str) -> str:
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE))


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is in the extra `test`")
def test_the_code_of_readme_is_typed(tmp_path):
    trained, parts = code("Use a trained model"), code("Use the parts")
    assert "rann_jax.Tagger" in trained
    assert "features.melspectrogram" in parts
    (tmp_path / "trained.py").write_text(trained)
    (tmp_path / "parts.py").write_text(parts + ALSO)
    # On the path of Python, as installed packages are, only what py.typed declares to be typed is.
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("rann_jax", "input_pipeline", "configs"):
        (packages / name).symlink_to(REPOSITORY / name)
    command = [sys.executable, "-m", "mypy", "--config-file", os.devnull, "--cache-dir", "cache"]
    ended = subprocess.run(
        [*command, "trained.py", "parts.py"],
        env={**os.environ, "PYTHONPATH": str(packages)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    said = [line for line in ended.stdout.splitlines() if "soundfile" not in line]  # it has no types
    assert [line for line in said if ": error:" in line] == [], ended.stdout
    assert any(re.search(r'Revealed type is ".*Array"', line) for line in said), ended.stdout + ended.stderr
