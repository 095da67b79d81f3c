"""Parts of a training run: initial and frozen weights, gradients in parts, preemption, traces."""
