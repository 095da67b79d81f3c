"""A training step in JAX and in PyTorch on the same device, and how far it is from what the device can do.

    python -m benchmarks.train_step --json benchmarks/results/train_step_cpu.json    # CPU: small networks
    python -m benchmarks.train_step --json benchmarks/results/train_step_gpu.json    # GPU: all of them

On a GPU: RANN-8x4-6, 4x4-6, 8x4-4 and CNN14, bfloat16, batches of 32 to 256. From `waveform` both sides have
int16 PCM on the device and do augmentation (mixup, SpecAugment), front end, network with dropout where it has
any, loss, Adam and, for RANNs, moving averages of weights and statistics; from `features` the same behind the
front end, without augmentation. benchmarks/twin.py says how PyTorch does it; the columns of torch.compile
are the same with the network compiled by it.

Medians of all rounds; a ratio above 1 means that JAX is faster. JAX GB is the peak on an accelerator, tried
algorithms included, and on a CPU what the compiled step holds; PyTorch GB is the peak on a GPU. FLOPs are
those of the network, 6 for each multiply-add; bytes are what XLA counts of its own program; both are beside
what the same device does in a large matrix product and a plain addition. `compiled` is tracing and compiling;
`from cache` is the same in another process that finds the program compiled. `waits for the host` is how much
of a step goes to waiting where the batch comes from there: 1 - (step on data that is on the device) / (step
on fresh data), --steps of them dispatched without waiting for the one before (1 by default on a CPU).

--dry_run builds both sides, lowers ours for CUDA and runs theirs on the meta device; it allocates no batch.
"""

from collections.abc import Sequence

from benchmarks import paired
from benchmarks.workload import TRAINING


def main(arguments: Sequence[str] | None = None) -> None:
    paired.main(TRAINING, "benchmarks.train_step", __doc__, arguments)


if __name__ == "__main__":
    main()
