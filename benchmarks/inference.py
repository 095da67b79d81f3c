"""Inference in JAX and in PyTorch on the same device, and how far it is from what the device can do.

    python -m benchmarks.inference --json benchmarks/results/inference_cpu.json    # CPU: small networks
    python -m benchmarks.inference --json benchmarks/results/inference_gpu.json    # GPU: all of them

From `waveform`, int16 PCM on the device, or from `features` to class probabilities, with running statistics.
2 FLOPs for each multiply-add of the network. Everything else is as in benchmarks/train_step.py.
"""

from collections.abc import Sequence

from benchmarks import paired
from benchmarks.workload import INFERENCE


def main(arguments: Sequence[str] | None = None) -> None:
    paired.main(INFERENCE, "benchmarks.inference", __doc__, arguments)


if __name__ == "__main__":
    main()
