"""Time augmentation: its share of a training step, and single augmentations against audiomentations.

    python -m benchmarks.augment --json benchmarks/results/augment_cpu.json

The policy `all` is `augment=all` of configs/esc50.py; `every` has the same augmentations, each applied to
every example. The step is a whole training step without augmentation, from waveforms through a log-mel front
end to updated weights. The policy is timed alone, and its share is of the sum of both times. A second table
times single augmentations of a batch, jitted on JAX's default device, against audiomentations on the CPU,
clip by clip, in the same ranges; a ratio above 1 means that ours is faster. Calls take turns, and medians are
reported. The sounds are synthesised at 44.1 kHz.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.features import SR, synthesise
from configs import esc50
from rann_jax import augment, models, optimizer, steps
from rann_jax.command_line.parser import Parser
from rann_jax.devices.compiler import suited, xla_options
from rann_jax.features import front_end
from rann_jax.state import create_state

PACKAGES = ["jax", "jaxlib", "numpy", "audiomentations", "python-stretch", "librosa"]
CLASSES = 50
# Our augmentations by name, and the transforms of audiomentations that do the same, with their arguments.
PEERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "stretch": [
        ("TimeStretch", {"min_rate": 0.8, "max_rate": 1.25, "method": "librosa_phase_vocoder"}),
        ("TimeStretch", {"min_rate": 0.8, "max_rate": 1.25, "method": "signalsmith_stretch"}),
    ],
    "pitch": [
        ("PitchShift", {"min_semitones": -2, "max_semitones": 2, "method": "librosa_phase_vocoder"}),
        ("PitchShift", {"min_semitones": -2, "max_semitones": 2, "method": "signalsmith_stretch"}),
    ],
    "white_noise": [("AddGaussianSNR", {"min_snr_db": 10, "max_snr_db": 40})],
    "gain": [("Gain", {"min_gain_db": -6, "max_gain_db": 6})],
    "roll": [("Shift", {"min_shift": -0.5, "max_shift": 0.5, "fade_duration": 0})],
}


def policy(options: Mapping[str, Mapping[str, Any]]) -> augment.Policy:
    return augment.policy(options, sample_rate=SR)


def on_batch(chosen: augment.Policy, audio: np.ndarray) -> Callable[[], Any]:
    """Return a call that applies the policy to waveforms (B, N), with a new key each time."""
    labels = jnp.eye(len(audio), CLASSES, dtype=jnp.float32)
    run = jax.jit(lambda key, audio, labels: chosen.on_audio(key, audio, labels))
    keys, sound = iter(jax.random.split(jax.random.key(0), 1000)), jnp.asarray(audio)
    return lambda: jax.block_until_ready(run(next(keys), sound, labels))


def training_step(network: str, audio: np.ndarray) -> Callable[[], Any]:
    """Return a call that trains one step on waveforms (B, N) without augmentation."""
    model = suited(models.create(network, num_classes=CLASSES))
    features = front_end("log_mel", sample_rate=SR, seconds=audio.shape[1] / SR)
    tx = optimizer.adam(schedule="constant", learning_rate=1e-4, total_steps=1)
    image = jnp.zeros((1, features.n_bins, features.n_frames))
    holder = [jax.jit(lambda: create_state(model, tx, image, seed=0))()]
    step = steps.make_train_step(model, features, tx, task="classification", ema_decay=0.999)
    run = jax.jit(step, donate_argnums=0, compiler_options=xla_options())
    batch = {"audio": jnp.asarray(audio), "labels": jnp.eye(len(audio), CLASSES, dtype=jnp.float32)}

    def once() -> None:
        holder[0], metrics = run(holder[0], batch)
        jax.block_until_ready((holder[0], metrics))

    return once


def shares(network: str, audio: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Return the cost of each policy, of the step, and the policy's share of their sum."""
    every = {name: {} for name in esc50.AUGMENT["all"]}
    calls = {"all": on_batch(policy(esc50.AUGMENT["all"]), audio), "every": on_batch(policy(every), audio)}
    taken = machine.medians({**calls, "step": training_step(network, audio)}, repeats)
    step = taken.pop("step")
    return [
        {"policy": name, "policy_s": cost, "step_s": step, "share": cost / (step + cost)}
        for name, cost in taken.items()
    ]


def clip_by_clip(name: str, arguments: Mapping[str, Any], audio: np.ndarray) -> Callable[[], Any]:
    import audiomentations

    effect = getattr(audiomentations, name)(p=1.0, **arguments)
    return lambda: [effect(clip, sample_rate=SR) for clip in audio]


def beside_peers(audio: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Time each augmentation that audiomentations has too."""
    rows = []
    for name, peers in PEERS.items():
        calls = {"ours": on_batch(policy({name: {}}), audio)}
        for peer, arguments in peers:
            calls[f"{peer} {arguments.get('method', '')}".strip()] = clip_by_clip(peer, arguments, audio)
        taken = machine.medians(calls, repeats)
        rows += [
            {"augmentation": name, "ours_s": taken["ours"], "peer": peer, "peer_s": seconds}
            | {"ratio": seconds / taken["ours"]}
            for peer, seconds in taken.items()
            if peer != "ours"
        ]
    return rows


def shown(value: Any, head: str) -> str:
    if isinstance(value, float):
        return f"{value:.1%}" if head == "share" else f"{value:.2f}" if head == "ratio" else f"{value:.4f}"
    return str(value)


def table(rows: list[dict[str, Any]]) -> str:
    heads = list(rows[0])
    return machine.markdown(heads, [[shown(row[head], head) for head in heads] for row in rows])


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("benchmarks.augment", __doc__)
    parser.add_argument("--network", default="rann-4x4-4", help="a RANN (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the tables here")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")

    report = machine.about("benchmarks.augment", arguments, PACKAGES)
    samples = round(SR * models.crop_seconds(options.network))
    audio = synthesise(options.batch)[:, :samples]
    report["network"], report["batch"] = options.network, options.batch
    report["share_of_step"] = shares(options.network, audio, options.repeats)
    print(table(report["share_of_step"]), flush=True)
    report["beside_audiomentations"] = beside_peers(audio, options.repeats)
    print(table(report["beside_audiomentations"]))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
