"""Time a training step in JAX and PyTorch on the same device, and compare it with the device's limits.

    python -m benchmarks.train_step --json benchmarks/results/train_step_cpu.json    # CPU: small networks
    python -m benchmarks.train_step --json benchmarks/results/train_step_gpu.json    # GPU: all of them

The defaults on a GPU are RANN-8x4-6, 4x4-6, 8x4-4 and CNN14 in bfloat16 with batches of 32 to 256. With
`waveform`, both sides start from int16 PCM on the device and do augmentation (mixup, SpecAugment), front end,
network (with dropout where it has any), loss, Adam and, for RANNs, moving averages of weights and statistics.
With `features`, both start after the front end, without augmentation. benchmarks/twin.py describes the
PyTorch side; the torch.compile columns are the same with forward and backward pass compiled together.

Times are medians over all rounds; a ratio above 1 means that JAX is faster. JAX GB is peak memory on an
accelerator (including the algorithms that were tried), and on a CPU the memory of the compiled step; PyTorch
GB is peak memory on a GPU. FLOPs are those of the network, 6 per multiply-add; bytes are XLA's count for its
own program. Both are compared with a large matrix product and a plain addition on the same device. `compiled`
is tracing and compiling; `from cache` is the same in a second process that finds the compiled program.
`waits for the host` is the share of a step spent waiting when batches come from the host: 1 - (step on data
on the device) / (step on fresh data). For this, --steps steps (1 by default on a CPU) are dispatched without
waiting for each other.

--dry-run builds both sides, lowers ours for CUDA and runs PyTorch's on the meta device, without allocating a
batch.
"""

from collections.abc import Sequence

from benchmarks import paired
from benchmarks.workload import TRAINING


def main(arguments: Sequence[str] | None = None) -> None:
    paired.main(TRAINING, "benchmarks.train_step", __doc__, arguments)


if __name__ == "__main__":
    main()
