"""Time inference in JAX and PyTorch on the same device, and compare it with the device's limits.

    python -m benchmarks.inference --json benchmarks/results/inference_cpu.json    # CPU: small networks
    python -m benchmarks.inference --json benchmarks/results/inference_gpu.json    # GPU: all of them

The input is `waveform`, int16 PCM on the device, or `features`; the output is class probabilities, computed
with running statistics. Each multiply-add of the network counts as 2 FLOPs. Everything else is as in
benchmarks/train_step.py.
"""

from collections.abc import Sequence

from benchmarks import paired
from benchmarks.workload import INFERENCE


def main(arguments: Sequence[str] | None = None) -> None:
    paired.main(INFERENCE, "benchmarks.inference", __doc__, arguments)


if __name__ == "__main__":
    main()
