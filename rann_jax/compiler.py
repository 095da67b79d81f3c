"""Options of XLA with which programs of networks are compiled, where JAX's defaults are slower."""

import functools

import jax

# On CPUs XLA gives convolutions of 32 channels and more to the library YNN, which is slower than its own, and
# computes the gradients of their weights on one thread (docs/performance.md). The rest of its default stays.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}


def network_options(device: jax.Device | None = None) -> dict[str, str | bool]:
    """What `jax.jit` takes as `compiler_options` for a network on such a device, or on JAX's default.

    Only what this version of JAX knows: the options are XLA's own, and experimental.
    """
    platform = device.platform if device else jax.default_backend()
    return known_options(**CPU_OPTIONS) if platform == "cpu" else {}


@functools.cache
def known_options(**options: str | bool) -> dict[str, str | bool]:
    """Those of the options with which XLA compiles for a CPU."""

    def known(name: str) -> bool:
        try:
            jax.jit(lambda x: x, compiler_options={name: options[name]}).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {name: value for name, value in options.items() if known(name)}
