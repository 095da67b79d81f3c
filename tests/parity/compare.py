"""Helpers that give a network and its PyTorch twin equal weights and compare them."""

import numpy as np
import torch

from rann_jax.interop import to_state_dict


def relative(a, b) -> float:
    """Return max |a - b| / max |b|."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


def randomise(network: torch.nn.Module) -> None:
    """Set weights that preserve the signal's scale, and statistics that differ from a fresh network's."""
    generator = torch.Generator().manual_seed(0)

    def uniform(tensor, low, high):
        with torch.no_grad():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
            # The first BatchNorm sees dB.
            uniform(module.running_mean, *((-60, -30) if name == "bn0" else (-0.2, 0.2)))
            uniform(module.running_var, *((100, 400) if name == "bn0" else (0.5, 1.5)))
        elif hasattr(module, "weight") and module.weight.requires_grad:
            bound = (6 / module.weight[0].numel()) ** 0.5  # He's initialisation
            uniform(module.weight, -bound, bound)


def load_into(network: torch.nn.Module, variables, name: str) -> None:
    """Load all weights and statistics of the network `name` into its twin."""
    entries = {entry: torch.tensor(array) for entry, array in to_state_dict(variables, name).items()}
    missing, unexpected = network.load_state_dict(entries, strict=False)
    assert not unexpected
    # Only the batch counters have no counterpart.
    assert all(entry.endswith("num_batches_tracked") for entry in missing)


def biased_statistics(network: torch.nn.Module, before, *inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Return a twin's running statistics after one training step from `before`, as flax keeps them.

    torch stores the unbiased batch variance, n / (n - 1) times the biased variance that flax stores.
    """
    sizes = _values_per_statistic(network, *inputs)
    after = {}
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            after[name] = buffer.numpy()
        elif name.endswith("running_var"):
            n = sizes[name.removesuffix(".running_var")]
            kept = 0.9 * before[name]
            after[name] = kept + (buffer.numpy() - kept) * (n - 1) / n
    return after


def _values_per_statistic(network: torch.nn.Module, *inputs: torch.Tensor) -> dict[str, int]:
    """Return how many values each BatchNorm of a twin averages over."""
    sizes = {}
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, _, name=name: sizes.update({name: inputs[0].numel() // inputs[0].shape[1]})
        )
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)
    ]
    with torch.no_grad():
        network.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    return sizes
