"""environment.json: the command, versions and devices of a run's last launch."""

import json
import os
import platform
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import jax

import rann_jax
from rann_jax.errors import ConfigError
from rann_jax.saved.workdir import replace_atomically

FILE = "environment.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "librosa", "numpy", "scipy")
MAX_BYTES = 1 << 20


def command_text(module: str, arguments: Sequence[str]) -> str:
    """Return what to type for the same launch.

    >>> command_text("rann_jax.main", ["--workdir", "my run"])
    "python -m rann_jax.main --workdir 'my run'"
    """
    return shlex.join(["python", "-m", module, *arguments])


def device_kind() -> str:
    """Return the kind of the devices, such as 'NVIDIA H100 80GB HBM3'; for a CPU, its model name if known."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def describe(command: str) -> dict[str, str]:
    """Return command, versions, operating system and devices, as name -> text."""
    versions = {"rann-jax": rann_jax.__version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # as in a source tree that is not installed
            versions[package] = "unknown"
    devices = f"{jax.device_count()} x {device_kind()} ({jax.default_backend()})"
    hosts = {"processes": str(jax.process_count()), "host CPUs": str(os.cpu_count())}
    return {"command": command, "devices": devices, **hosts, "system": platform.platform(), **versions}


def save(workdir: Path, command: str) -> None:
    """Write environment.json."""
    with replace_atomically(workdir / FILE) as file:
        file.write(json.dumps(describe(command), indent=2) + "\n")


def load(workdir: Path) -> dict[str, str]:
    """Return what `save` wrote; empty for workdirs of versions that did not write it.

    Raises:
      ConfigError: the file is something else.
    """
    path = workdir / FILE
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MAX_BYTES))
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}: delete it") from error
    return {name: str(value) for name, value in values.items()}
