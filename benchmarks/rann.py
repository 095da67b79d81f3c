"""RANN in JAX and in PyTorch on the same cores: inference and a training step, interleaved in one run.

    python -m benchmarks.rann --names rann-4x4-2 rann-8x4-2 --json benchmarks/results/rann_cpu.json

From feature images in memory to probabilities, or to updated weights (Adam). PyTorch runs in channels_last,
compared first for equal outputs. Medians; a ratio above 1 means that JAX is faster.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import paired
from rann_jax import models, optimizer, steps
from rann_jax.models import crop_seconds
from rann_jax.state import create_state
from tests.parity.compare import load_into
from tests.parity.torch_rann import TorchRANN

CLASSES = 50


def jax_functions(name: str, x: np.ndarray, y: np.ndarray) -> tuple[Callable, Callable, dict]:
    """Inference and training step, each waiting for its result, and the weights they start from."""
    model = models.create(name, num_classes=CLASSES)
    tx = optimizer.adam(schedule="constant", learning_rate=1e-4, total_steps=1)
    state = jax.jit(lambda: create_state(model, tx, jnp.zeros((1, *x.shape[1:])), seed=0))()
    weights = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    identity = lambda audio: audio  # noqa: E731
    train = jax.jit(
        steps.make_train_step(model, identity, tx, task="classification", ema_decay=0.999),
        donate_argnums=0,
    )
    infer = jax.jit(steps.make_eval_step(model, identity, task="classification"))
    batch = {"audio": jnp.asarray(x), "labels": jnp.asarray(y)}
    variables = jax.tree.map(jnp.copy, state.ema_variables)
    holder = [state]

    def train_once():
        holder[0], metrics = train(holder[0], batch)
        jax.block_until_ready((holder[0], metrics))

    return lambda: np.asarray(infer(variables, batch["audio"])), train_once, weights


def torch_functions(name: str, x: np.ndarray, y: np.ndarray, weights: dict) -> tuple[Callable, Callable]:
    """The same of the twin in channels_last, with the same weights."""
    t_m, width = int(name.split("x")[1].split("-")[0]), int(name.split("-")[-1])
    network = TorchRANN(CLASSES, t_m, width, n_bins=x.shape[1])
    load_into(network, weights, name)
    network = network.to(memory_format=torch.channels_last)
    images, labels = torch.tensor(x), torch.tensor(y)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)

    def infer():
        network.eval()
        with torch.inference_mode():
            return torch.softmax(network(images), -1).numpy()

    def train():
        network.train()
        adam.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        adam.step()

    return infer, train


def measure(name: str, batch_size: int, repeats: int) -> dict:
    rng = np.random.default_rng(0)
    frames = round(128 * crop_seconds(name))
    x = rng.standard_normal((batch_size, 128, frames), np.float32)
    y = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batch_size)]
    infer, train, weights = jax_functions(name, x, y)
    torch_infer, torch_train = torch_functions(name, x, y, weights)
    np.testing.assert_allclose(infer(), torch_infer(), atol=1e-5)
    row: dict = {"network": name, "batch": batch_size}
    row["inference"] = paired.cell(infer, torch_infer, repeats)
    row["training"] = paired.cell(train, torch_train, repeats)
    return row


def main() -> None:
    parser = paired.parser(__doc__, batch=8, repeats=7)
    parser.add_argument("--names", nargs="+", default=["rann-4x4-2"], help="RANN names")
    args = parser.parse_args()
    rows = [measure(name, args.batch, args.repeats) for name in args.names]
    paired.report(rows, "benchmarks.rann", args.json)


if __name__ == "__main__":
    main()
