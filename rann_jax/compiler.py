"""XLA compiler options for networks, where JAX's defaults are slower."""

import functools

import jax

# On CPUs XLA hands convolutions of 32 or more channels to the library YNN, which is slower than XLA's own
# code and computes the weight gradients on one thread (docs/performance.md). The rest of the default is kept.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}


def network_options(device: jax.Device | None = None) -> dict[str, str | bool]:
    """Return the `compiler_options` of `jax.jit` for a network on a device (None: JAX's default device).

    They are XLA's own, experimental options; only those that this version of JAX knows are returned.
    """
    platform = device.platform if device else jax.default_backend()
    return known_options(**CPU_OPTIONS) if platform == "cpu" else {}


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
