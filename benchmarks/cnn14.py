"""A training step of CNN14 in JAX and of the PyTorch original on the same cores, interleaved in one run.

    python -m benchmarks.cnn14 --batch 2 --seconds 10 --json benchmarks/results/cnn14_cpu.json

From waveforms in memory to updated weights: log-mel, network with dropout, binary cross-entropy, Adam with
amsgrad. The original is panns-inference's, in channels_last; its SpecAugment is left out on both sides.
Outputs are compared first. Medians; a ratio above 1 means that JAX is faster.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from benchmarks import paired
from rann_jax import features, interop, models, optimizer, steps
from rann_jax.state import create_state
from tests.parity.panns_inference import panns_models

RATE, CLASSES, LEARNING_RATE = 32000, 527, 1e-3


def original() -> torch.nn.Module:
    """panns-inference's CNN14 with its own random weights, in channels_last, without SpecAugment."""
    torch.manual_seed(0)
    with panns_models() as module:
        network = module.Cnn14(RATE, 1024, 320, 64, 50, 14000, CLASSES)
    network.spec_augmenter = torch.nn.Identity()
    return network.to(memory_format=torch.channels_last)


def torch_step(network: torch.nn.Module, waves: np.ndarray, labels: np.ndarray) -> Callable:
    """A training step of the original."""
    adam = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, amsgrad=True)
    x, y = torch.tensor(waves), torch.tensor(labels)

    def train() -> None:
        network.train()
        adam.zero_grad()
        torch.nn.functional.binary_cross_entropy(network(x)["clipwise_output"], y).backward()
        adam.step()

    return train


def jax_functions(
    network: torch.nn.Module, waves: np.ndarray, labels: np.ndarray
) -> tuple[Callable, Callable]:
    """Inference and training step of ours, each waiting for its result, from the original's weights."""
    model = models.create("cnn14", num_classes=CLASSES)
    front_end = features.front_end("panns_log_mel", RATE, waves.shape[1] / RATE, 100)
    tx = optimizer.adam(schedule="constant", learning_rate=LEARNING_RATE, total_steps=1, amsgrad=True)
    variables = interop.load_torch(network.state_dict(), "cnn14").variables
    shape = jax.ShapeDtypeStruct(waves.shape, jnp.float32)
    images = jax.tree.map(jnp.zeros_like, jax.eval_shape(front_end, shape))
    state = jax.jit(lambda given: create_state(model, tx, images, seed=0, given=given))(
        flatten_dict(variables)
    )
    train = jax.jit(
        steps.make_train_step(model, front_end, tx, task="tagging", ema_decay=0.0), donate_argnums=0
    )
    infer = jax.jit(steps.make_eval_step(model, front_end, task="tagging"))
    batch = {"audio": jnp.asarray(waves), "labels": jnp.asarray(labels)}
    holder = [state]

    def train_once() -> None:
        holder[0], metrics = train(holder[0], batch)
        jax.block_until_ready((holder[0], metrics))

    return lambda: np.asarray(infer(variables, batch["audio"])), train_once


def measure(batch_size: int, seconds: float, repeats: int) -> dict:
    rng = np.random.default_rng(0)
    waves = rng.uniform(-0.5, 0.5, (batch_size, round(RATE * seconds))).astype(np.float32)
    labels = (rng.random((batch_size, CLASSES)) < 0.01).astype(np.float32)
    network = original()
    infer, train = jax_functions(network, waves, labels)
    with torch.inference_mode():
        expected = network.eval()(torch.tensor(waves))["clipwise_output"].numpy()
    np.testing.assert_allclose(infer(), expected, atol=1e-5)
    training = paired.cell(train, torch_step(network, waves, labels), repeats)
    return {"network": "cnn14", "batch": batch_size, "seconds": seconds, "training": training}


def main() -> None:
    parser = paired.parser(__doc__, batch=2, repeats=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    args = parser.parse_args()
    row = measure(args.batch, args.seconds, args.repeats)
    paired.report([row], "benchmarks.cnn14", args.json)


if __name__ == "__main__":
    main()
