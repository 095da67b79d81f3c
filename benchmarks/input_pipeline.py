"""Time the input pipeline in clips per second: against PANNs' loader, and while a network trains.

    python -m benchmarks.input_pipeline --data-dir ESC10 --json benchmarks/results/input_pipeline_cpu.json

ESC10 is a copy of ESC-10. There are two subjects, each measured with warm caches:

reading: clips of 10 s at 32 kHz, each made of two neighbouring recordings, are read, cropped at random to 8 s
and put on the device in batches of 32. Ours reads the prepared copy with one thread per core. The peer does
what PANNs does (github.com/qiuqiangkong/audioset_tagging_cnn, utils/data_generator.py): a torch DataLoader
with one process per core, whose dataset opens the HDF5 file for each clip, converts it to float32 and, here,
crops it; it needs torch and h5py. The sides take turns, each in its own process. Beside clips per second, the
program reports clips per second of processor time over all threads and processes: the rate of one core, which
other programs on the machine do not lower.

network: training configs/esc50.py:subset=esc10,size=small, from waveforms to updated weights, with crops of
4 s at 44.1 kHz in batches of 16; measured for batches alone, the network alone, and both together.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil

from benchmarks import machine
from rann_jax.command_line.parser import Parser

RATE, CLIP_SECONDS, CROP_SECONDS, BATCH = 32000, 10, 8, 32
CLIPS = 400
WARM_UP, BATCHES = 8, 20
STEP_CLIPS_PER_SECOND = 1000  # of RANN-8x4-6 on one H100, as planned for; not measured here
CORES = len(os.sched_getaffinity(0))


def write_clips(esc10: Path, folder: Path) -> None:
    """Write the same clips twice: as FLAC files for `prepare`, and in an HDF5 file as PANNs packs it."""
    import h5py
    import soundfile

    from input_pipeline import audio

    sounds = sorted((esc10 / "audio").iterdir())[:CLIPS]
    half = [audio.resample(audio.decode(sound), RATE).samples for sound in sounds]
    half = [audio.pad_or_crop(samples, RATE * CLIP_SECONDS // 2) for samples in half]
    with h5py.File(folder / "clips.h5", "w") as file:
        file.create_dataset("waveform", (len(half), RATE * CLIP_SECONDS), np.int16)
        file.create_dataset("target", (len(half), 527), bool)
        for row, sound in enumerate(sounds):
            samples, _ = audio.to_int16(np.concatenate([half[row], half[(row + 1) % len(half)]]))
            file["waveform"][row] = samples
            path = folder / "clips" / sound.stem.split("-")[-1] / f"{sound.stem}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, RATE)


def ours(folder: Path, storage: str) -> Iterator[object]:
    """Yield batches on the device, from the prepared copy."""
    import jax

    from input_pipeline import prepare, train_batches

    prepared = prepare(
        "folder",
        data_dir=str(folder / "clips"),
        prepared_dir=str(folder / "prepared"),
        sample_rate=RATE,
        storage=storage,
        progress=False,
    )
    batches = train_batches(
        prepared,
        "+".join(prepared.splits),
        crop_samples=CROP_SECONDS * RATE,
        batch_size=BATCH,
        seed=0,
        num_threads=CORES,
    )
    for batch in batches:
        yield jax.block_until_ready(jax.device_put(batch))


class PannsClips:
    """PANNs' dataset: it opens the file for every clip and converts samples to float32 on the host."""

    def __init__(self, path: Path):
        self._path = path

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        import h5py

        with h5py.File(self._path, "r") as file:
            waveform = (file["waveform"][index] / 32767.0).astype(np.float32)
            target = file["target"][index].astype(np.float32)
        start = np.random.randint(len(waveform) - CROP_SECONDS * RATE + 1)
        return {"waveform": waveform[start : start + CROP_SECONDS * RATE], "target": target}


def panns(folder: Path) -> Iterator[object]:
    """Yield batches of torch tensors on the host, from the HDF5 file."""
    import torch

    def endless() -> Iterator[list[int]]:
        rng = np.random.default_rng(0)
        while True:
            order = rng.permutation(CLIPS)
            for start in range(0, CLIPS - BATCH + 1, BATCH):
                yield order[start : start + BATCH].tolist()

    def stacked(clips: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {key: np.array([clip[key] for clip in clips]) for key in clips[0]}

    loader = torch.utils.data.DataLoader(
        PannsClips(folder / "clips.h5"),
        batch_sampler=endless(),
        collate_fn=stacked,
        num_workers=CORES,
        pin_memory=False,
    )
    for batch in loader:
        yield {key: torch.from_numpy(value) for key, value in batch.items()}


SIDES: Mapping[str, Callable[[Path], Iterator[object]]] = {
    "ours, pcm": lambda folder: ours(folder, "pcm"),
    "PANNs": panns,
    "ours, flac": lambda folder: ours(folder, "flac"),
}


def processor_seconds() -> float:
    """Return the processor time of this process, its threads and its children."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def measure(side: str, folder: Path) -> dict[str, float]:
    """Return clips per second, and per second of processor time, after some warm-up batches."""
    batches = SIDES[side](folder)
    for _ in range(WARM_UP):
        next(batches)
    begin, used = time.perf_counter(), processor_seconds()
    for _ in range(BATCHES):
        next(batches)
    clips = BATCHES * BATCH
    used = processor_seconds() - used
    return {"clips_per_second": clips / (time.perf_counter() - begin), "per_core": clips / used}


def reading(esc10: Path, folder: Path, repeats: int) -> dict[str, object]:
    """Return medians of all sides, measured in turn, each time in a new process."""
    if not (folder / "clips.h5").exists():
        write_clips(esc10, folder)
    for storage in ("pcm", "flac"):
        next(ours(folder, storage))  # prepare before anything is timed
    figures: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.input_pipeline", "--side", side]
            command += ["--work", str(folder)]
            figures[side].append(json.loads(subprocess.check_output(command)))
            print(side, figures[side][-1], file=sys.stderr, flush=True)
    medians = {
        side: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for side, runs in figures.items()
    }
    ratios = {
        key: medians["ours, pcm"][key] / medians["PANNs"][key] for key in ("clips_per_second", "per_core")
    }
    share = 16 * medians["ours, pcm"]["per_core"] / STEP_CLIPS_PER_SECOND
    return {
        **medians,
        "ratio of ours, pcm, to PANNs": ratios,
        f"16 cores, as a share of {STEP_CLIPS_PER_SECOND} clips/s": share,
    }


def network(esc10: Path, repeats: int) -> dict[str, float]:
    """Return clips per second of batches alone, the network alone, and both together."""
    import jax

    from configs.esc50 import get_config
    from input_pipeline import prepare, train_batches
    from rann_jax import distributed
    from rann_jax.experiment import build
    from rann_jax.training.compiled import compiled_step

    config = get_config("subset=esc10,size=small")
    experiment = build(config)
    prepared = prepare("esc50", data_dir=str(esc10), sample_rate=config.sample_rate, subset="esc10")
    batches = train_batches(
        prepared,
        config.splits.train,
        crop_samples=experiment.crop_samples,
        batch_size=config.batch_size,
        seed=0,
    )
    mesh = distributed.data_mesh()
    train_step = compiled_step(experiment, mesh)
    holder = [experiment.create(shardings=experiment.shardings(mesh))]
    kept = distributed.place_batch(next(batches), mesh)

    def train(batch: Mapping[str, jax.Array]) -> None:
        holder[0], metrics = train_step(holder[0], batch)
        jax.block_until_ready(metrics)

    def speed(advance: Callable[[], object], count: int) -> float:
        speeds = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            for _ in range(count):
                advance()
            speeds.append(count * config.batch_size / (time.perf_counter() - begin))
        return statistics.median(speeds[1:])  # the first round is warm-up

    figures = {
        "pipeline alone": speed(lambda: next(batches), 50),
        "network alone": speed(lambda: train(kept), 4),
        "pipeline and network": speed(lambda: train(distributed.place_batch(next(batches), mesh)), 4),
    }
    batches.close()
    return figures


def main() -> None:
    parser = Parser("benchmarks.input_pipeline", __doc__)
    parser.add_argument("--data-dir", type=Path, help="copy of ESC-10 in the official layout (required)")
    parser.add_argument("--subjects", default="reading,network", help="reading, network, or both (default)")
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/input_pipeline_benchmark"), help="folder for clips"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here; keep other subjects")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.work)))
        return
    if args.data_dir is None:
        parser.error("--data-dir is missing: name a copy of ESC-10")
    args.work.mkdir(exist_ok=True)
    subjects = args.subjects.split(",")
    figures: dict[str, object] = {}
    if "reading" in subjects:
        figures["reading"] = reading(args.data_dir, args.work, args.repeats)
    if "network" in subjects:
        figures["network"] = network(args.data_dir, args.repeats)
    print(json.dumps(figures, indent=2))
    if args.json:
        kept = json.loads(args.json.read_text()) if args.json.exists() else {}
        shown = ["--data-dir", "ESC10", "--subjects", args.subjects, "--repeats", str(args.repeats)]
        about = machine.about("benchmarks.input_pipeline", shown, ("array-record", "grain", "h5py", "torch"))
        kept |= {name: {**about, "figures": value} for name, value in figures.items()}
        args.json.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
