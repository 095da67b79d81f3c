"""What a network needs to be fast on a device: XLA's compiler options, and the form of the network itself."""

import functools

import jax
from flax import linen as nn

# On CPUs XLA hands convolutions of 32 or more channels to the library YNN, which is slower than XLA's own
# code and computes the weight gradients on one thread (docs/performance.md). The rest of the default is kept.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}


def xla_options(device: jax.Device | None = None) -> dict[str, str | bool]:
    """Return the `compiler_options` of `jax.jit` for a network on a device (None: JAX's default device).

    They are XLA's own, experimental options; only those that this version of JAX knows are returned.
    """
    platform = device.platform if device else jax.default_backend()
    return known_options(**CPU_OPTIONS) if platform == "cpu" else {}


def suited(model: nn.Module, device: jax.Device | None = None) -> nn.Module:
    """Return a network in the form that is fast on a device (None: the first of JAX's default platform).

    The variables are the same for every form; results differ by rounding. A network keeps the `lanes` that it
    has been given; one without this attribute has only one form.
    """
    if getattr(model, "lanes", 1) is not None:
        return model
    return model.clone(lanes=lanes(device or jax.devices()[0]))


def lanes(device: jax.Device) -> int:
    """Return how many channels a TPU's matrix units take at once, and 1 for other devices.

    They have 128 x 128 cells up to v5, and 256 x 256 from v6 (https://cloud.google.com/tpu/docs/v6e).
    """
    if device.platform != "tpu":
        return 1
    return 128 if device.device_kind.startswith(("TPU v2", "TPU v3", "TPU v4", "TPU v5")) else 256


@functools.cache
def known_options(**options: str | bool) -> dict[str, str | bool]:
    """Return those of the options that XLA accepts for a CPU."""

    def known(name: str) -> bool:
        try:
            jax.jit(lambda x: x, compiler_options={name: options[name]}).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {name: value for name, value in options.items() if known(name)}
