"""Clips per second of the input pipeline, alone and while a network trains.

    python -m benchmarks.input_pipeline --data_dir DIR --json benchmarks/results/input_pipeline_cpu.json

DIR is a copy of ESC-10 (44.1 kHz); crops of 4 s, batches of 16, warm cache. Alone: batches are only read.
With the network: the training of configs/esc50.py:subset=esc10,size=small, waveform to updated weights.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax

from configs.esc50 import get_config
from input_pipeline import prepare, train_batches
from rann_jax import distributed
from rann_jax.experiment import build
from rann_jax.steps import make_train_step


def clips_per_second(advance: Callable[[], None], batch_size: int, batches: int, repeats: int) -> float:
    """Median over repeats, after one that is not counted."""
    speeds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        for _ in range(batches):
            advance()
        speeds.append(batches * batch_size / (time.perf_counter() - begin))
    return statistics.median(speeds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="copy of ESC-10 or ESC-50 in the official layout")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()

    config = get_config("subset=esc10,size=small")
    experiment = build(config)
    prepared = prepare("esc50", data_dir=args.data_dir, sample_rate=config.sample_rate, subset="esc10")

    def batches():
        return train_batches(
            prepared,
            config.splits.train,
            crop_samples=experiment.crop_samples,
            batch_size=config.batch_size,
            seed=0,
        )

    reading = batches()
    alone = clips_per_second(lambda: next(reading), config.batch_size, 50, args.repeats)
    reading.close()

    mesh = distributed.data_mesh()
    step = make_train_step(
        experiment.model,
        experiment.front_end,
        experiment.tx,
        task=config.task,
        ema_decay=config.ema_decay,
        augment=experiment.augment,
    )
    train_step = jax.jit(step, donate_argnums=0)
    holder = [jax.jit(experiment.initial_state)()]
    reading = batches()
    kept = distributed.place_batch(next(reading), mesh)

    def train(batch) -> None:
        holder[0], metrics = train_step(holder[0], batch)
        jax.block_until_ready(metrics)

    network = clips_per_second(lambda: train(kept), config.batch_size, 4, args.repeats)
    both = clips_per_second(
        lambda: train(distributed.place_batch(next(reading), mesh)), config.batch_size, 4, args.repeats
    )
    reading.close()

    figures = {"pipeline alone": alone, "network alone": network, "pipeline and network": both}
    for name, value in figures.items():
        print(f"{name:<21} {value:8.1f} clips/s")
    if args.json:
        about = {
            "command": "python -m benchmarks.input_pipeline --data_dir ESC-10",
            "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
            "versions": {"jax": jax.__version__, "python": platform.python_version()},
        }
        args.json.write_text(json.dumps({**about, "clips_per_second": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
