"""Time tagging a long file on two CPU cores: `rann_jax.predict` and panns-inference's CNN14, in turns.

    python -m benchmarks.predict --minutes 60 --json benchmarks/results/predict_cpu.json

Every measurement is a process of its own, bound to two cores. It loads and compiles, and is then timed from
opening the file to its tags; its peak memory is that of the whole process. The file is noise, 16-bit mono at
32 kHz. All systems get windows that overlap by half, of 10 s (CNN14 on both sides) or 4 s (RANN, which
resamples to 44.1 kHz), --batch at a time (by default what `predict` takes on a CPU). panns-inference has no
windows of its own, so it is given the same ones. Weights are random. Times are medians; a ratio above 1 means
that JAX is faster.
"""

import functools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks import machine
from configs.base import base
from input_pipeline import audio
from rann_jax.command_line.config_file import load_config_file
from rann_jax.command_line.parser import Parser
from rann_jax.experiment import build
from rann_jax.predict import tag_file
from rann_jax.tagger import Tagger
from rann_jax.tagging.events import Choice
from rann_jax.tagging.outputs import Outputs
from rann_jax.tagging.windows import batched, sliding

RATE = 32000
CLASSES = 527
PACKAGES = ("jax", "jaxlib", "flax", "torch", "panns-inference", "torchlibrosa", "librosa", "soundfile")


def write_noise(path: Path, minutes: float) -> None:
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(round(minutes * 60)):
            file.write(rng.normal(0, 0.1, RATE))


def of_rann_jax(network: str, seconds: float, at_once: int) -> Callable[[Path], object]:
    """Return tagging as the program does it, compiled for the batches of a file of this many seconds."""
    if network == "cnn14":
        config = load_config_file("configs/audioset.py:model=cnn14")
    else:
        config = base()
        config.model.name, config.t_c, config.num_classes = network, 4.0, CLASSES
    experiment = build(config)
    shapes = experiment.shapes.ema_variables
    rng = np.random.default_rng(0)

    def random(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        scale = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
        return jnp.asarray(1.0 * (leaf.ndim < 2) + scale * rng.normal(size=leaf.shape), leaf.dtype)

    labels = [f"class {c}" for c in range(CLASSES)]
    tagger = Tagger(experiment, jax.tree.map(random, shapes), labels, batch_size=at_once)
    window = tagger.window_seconds
    windows = max(1, math.ceil(2 * (seconds - window) / window) + 1)
    for size in {min(at_once, windows), windows % at_once or at_once}:
        tagger.predict(np.zeros((size, tagger.crop_samples), np.float32))
    outputs = Outputs(Choice(top=5, threshold=0.0))
    return lambda path: tag_file(tagger, path, None, tqdm(disable=True), outputs)


def of_panns_inference(_: float, at_once: int) -> Callable[[Path], object]:
    """Return tagging by the package's network, given the same windows."""
    import torch

    from tests.parity.panns_inference import panns_models

    with panns_models() as package:
        network = package.Cnn14(RATE, 1024, 320, 64, 50, 14000, CLASSES).eval()
    size = 10 * RATE

    def infer(windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(windows), None)["clipwise_output"].numpy()

    def tag(path: Path) -> np.ndarray:
        with audio.stream(path) as sound:
            groups = batched(sliding(sound.blocks, size, size // 2), at_once)
            return np.concatenate([infer(np.stack(group)) for _, _, group in groups]).mean(axis=0)

    infer(np.zeros((at_once, size), np.float32))
    return tag


SYSTEMS: dict[str, Callable[[float, int], Callable[[Path], object]]] = {
    "rann_jax cnn14": functools.partial(of_rann_jax, "cnn14"),
    "panns-inference cnn14": of_panns_inference,
    "rann_jax rann-4x4-1": functools.partial(of_rann_jax, "rann-4x4-1"),
}


def measure(system: str, path: Path, at_once: int) -> dict[str, float]:
    """Measure seconds and peak memory of one system in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.predict", "--system", system, "--file", str(path)]
    command += ["--batch", str(at_once)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure all systems in turns, each by running this program with --system."""
    parser = Parser("benchmarks.predict", __doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=4, help="windows at a time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--system", choices=tuple(SYSTEMS), help="internal: measure only this system")
    parser.add_argument("--file", type=Path, help="internal: the file for --system")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    if options.system:
        tag = SYSTEMS[options.system](soundfile.info(options.file).duration, options.batch)
        taken = machine.seconds(lambda: tag(options.file))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": taken, "peak_bytes": peak}))
        return
    about = machine.about("benchmarks.predict", None, PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.wav"
        write_noise(path, options.minutes)
        seen: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
        for _ in range(options.rounds):
            for system, measured in seen.items():
                measured.append(measure(system, path, options.batch))
    rows = {
        system: {
            "x_real_time": options.minutes * 60 / statistics.median(m["seconds"] for m in measured),
            "seconds": [m["seconds"] for m in measured],
            "peak_megabytes": max(m["peak_bytes"] for m in measured) / 1e6,
        }
        for system, measured in seen.items()
    }
    for system, row in rows.items():
        print(f"{system:<22} {row['x_real_time']:7.1f} x real time, {row['peak_megabytes']:6.0f} MB")
    ratio = rows["rann_jax cnn14"]["x_real_time"] / rows["panns-inference cnn14"]["x_real_time"]
    print(f"CNN14, ours to panns-inference: {ratio:.2f}")
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": rows, "cnn14_ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
