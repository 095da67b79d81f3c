"""environment.json: with which command, versions and devices a run was launched the last time."""

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
from rann_jax.workdir import replace_atomically

FILE = "environment.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "librosa", "numpy", "scipy")
MAX_BYTES = 1 << 20


def command_line(module: str, arguments: Sequence[str]) -> str:
    """What to type for the same launch.

    >>> command_line("rann_jax.main", ["--workdir", "my run"])
    "python -m rann_jax.main --workdir 'my run'"
    """
    return shlex.join(["python", "-m", module, *arguments])


def device_kind() -> str:
    """What the devices are, as in 'NVIDIA H100 80GB HBM3'; of CPUs their own name, where it is known."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def describe(command: str) -> dict[str, str]:
    """Command, versions, operating system and devices; name -> text."""
    versions = {"rann-jax": rann_jax.__version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # of a source tree that is not installed
            versions[package] = "unknown"
    devices = f"{jax.device_count()} x {device_kind()} ({jax.default_backend()})"
    hosts = {"processes": str(jax.process_count()), "host CPUs": str(os.cpu_count())}
    return {"command": command, "devices": devices, **hosts, "system": platform.platform(), **versions}


def save(workdir: Path, command: str) -> None:
    """Write environment.json."""
    with replace_atomically(workdir / FILE) as file:
        file.write(json.dumps(describe(command), indent=2) + "\n")


def load(workdir: Path) -> dict[str, str]:
    """What `save` wrote; empty where the workdir is of a version that did not.

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
            raise ValueError("it is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}: delete it") from error
    return {name: str(value) for name, value in values.items()}
