"""Parts of a training run: its start, the compiled step, frozen weights, gradients, preemption, traces."""
