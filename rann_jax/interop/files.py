"""State_dicts on disk: `.pth` by torch, `.safetensors` by safetensors; both imported lazily, only here."""

import importlib
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np

from rann_jax.errors import ConfigError, one_line_reason
from rann_jax.saved.workdir import replace_atomically

# Keys under which training programs keep the state_dict in a PyTorch file: PANNs, and Lightning.
STATE_DICT_KEYS = ("model", "state_dict")
_BLOCK_BYTES = 1 << 20
_MAX_UNPACKED = 1 << 30  # bytes, of an archive with compressed members: PyTorch reads such but writes none


def read_entries(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the entries of a file or mapping: floating ones as float32, others unchanged.

    Raises:
      ConfigError: no such file, not a file of tensors, or an entry that is not an array of numbers.
    """
    mapping = source if isinstance(source, Mapping) else _read(Path(source))
    nested = next((mapping[key] for key in STATE_DICT_KEYS if isinstance(mapping.get(key), Mapping)), mapping)
    room = math.inf if isinstance(source, Mapping) else Path(source).stat().st_size
    return {name: _array(value, name, describe(source), room) for name, value in nested.items()}


def write_entries(path: Path, entries: Mapping[str, np.ndarray]) -> None:
    """Write a state_dict atomically, with safetensors if its suffix is `.safetensors`, else by torch.save.

    Raises:
      ConfigError: the file cannot be written, or the package is not installed.
    """
    package = _package(path)
    try:
        with replace_atomically(path, "wb") as file:
            if path.suffix == ".safetensors":
                file.write(package.save(dict(entries)))
            else:
                # torch.tensor copies, since torch cannot represent that JAX's arrays are read-only.
                package.save({name: package.tensor(array) for name, array in entries.items()}, file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error


def describe(source: str | os.PathLike | Mapping[str, Any]) -> str:
    """Return the name of a source for messages."""
    return "the state_dict" if isinstance(source, Mapping) else str(Path(source))


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; name a PyTorch file, or .safetensors")
    package = _package(path)
    try:
        if path.suffix == ".safetensors":
            mapping = package.load_file(path)
        else:
            _check_archive(path)
            with package.serialization.safe_globals(_numpy_globals()):
                mapping = package.load(path, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except Exception as error:  # damaged or hostile bytes make the two packages raise nearly anything
        raise ConfigError(
            f"{path}: cannot be read as arrays and plain values ({type(error).__name__}): it is damaged, or "
            "holds Python objects and must be saved again as a state_dict"
        ) from error
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{path}: holds a {type(mapping).__name__}, not a state_dict")
    return mapping


def _check_archive(path: Path) -> None:
    """Raise an error if a PyTorch archive is not what was saved, or could fill the memory.

    PyTorch checks neither. It writes 0 for all checksums if it is told to write none.
    """
    if not zipfile.is_zipfile(path):  # PyTorch wrote another format before version 1.6
        return
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > max(_MAX_UNPACKED, path.stat().st_size):
            raise ConfigError(f"{path}: its members inflate to more than 1 GiB: save it again uncompressed")
        for member in archive.infolist():
            if member.CRC:
                with archive.open(member) as file:
                    while file.read(_BLOCK_BYTES):
                        pass


def _package(path: Path) -> ModuleType:
    """Return the package that reads and writes files with this suffix."""
    name = "safetensors" if path.suffix == ".safetensors" else "torch"
    try:
        return importlib.import_module("safetensors.numpy" if name == "safetensors" else name)
    except ImportError as error:
        raise ConfigError(f"{path}: needs {name}: pip install {name}") from error


def _numpy_globals() -> list[Any]:
    """Return the globals that weights_only must allow for NumPy arrays, which PANNs' programs also save.

    NumPy 1 called the module numpy.core, and so do files written with it.
    """
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    functions = [multiarray._reconstruct, multiarray.scalar]
    old = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    return [*functions, *old, np.ndarray, np.dtype, *dtypes]


def _array(value: Any, name: Any, where: str, room: float) -> np.ndarray:
    if hasattr(value, "detach"):
        value = _of_tensor(value, name, where)
    elif getattr(value, "nbytes", 0) > room:
        raise _more_than_held(name, where)
    dtype = getattr(value, "dtype", None)
    if not isinstance(name, str) or dtype is None or not jnp.issubdtype(dtype, jnp.number):
        raise ConfigError(f"{where}: entry {name!r} is a {type(value).__name__}, not an array of numbers")
    return np.asarray(value, np.float32 if jnp.issubdtype(dtype, jnp.floating) else dtype)


def _more_than_held(name: Any, where: str) -> ConfigError:
    return ConfigError(f"{where}: entry {name!r} declares more numbers than the file holds")


def _of_tensor(value: Any, name: Any, where: str) -> np.ndarray:
    """Return a tensor's numbers, floating ones as float32, since NumPy has no bfloat16."""
    try:
        value = value.detach().resolve_conj().cpu()
        # A few bytes in a file can claim to be repeated any number of times.
        if value.nbytes > value.untyped_storage().nbytes():
            raise _more_than_held(name, where)
        return (value.float() if value.is_floating_point() else value).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantized, nested, on no device
        raise ConfigError(
            f"{where}: entry {name!r} is not a plain array of numbers ({one_line_reason(error, 100)})"
        ) from error
