"""Test-wide settings: strict dtypes and ranks, eight CPU devices, and where real sound is found.

Real recordings are not part of the repository. Tests that need them take the `data_dir` fixture, which
reads the folder from the environment variable RANN_TEST_DATA (default `../shared/data` beside the
repository) and skips where it is absent.
"""

import os
from pathlib import Path

import jax
import pytest
from absl import flags

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# grain reads absl flags; the command line parses them, tests have none to parse.
flags.FLAGS.mark_as_parsed()

# Programs that tests launch leave nothing in the user's cache; see `cached`.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

TINY_LABELS = [f"class {c}" for c in range(10)]
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real recordings, or a skip that says how to provide it."""
    folder = Path(os.environ.get("RANN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}: set RANN_TEST_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """A folder for compiled programs, shared by the programs that the tests launch."""
    return tmp_path_factory.mktemp("compiled")


def cached(folder: Path) -> dict[str, str]:
    """The environment in which a launched program keeps and finds compiled programs."""
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="session")
def tiny_workdir(tmp_path_factory) -> Path:
    """A workdir of tests/tiny.py with random weights; not to be written to."""
    from tests.tiny import write_workdir

    return write_workdir(tmp_path_factory.mktemp("tiny"), 0, TINY_LABELS)


@pytest.fixture(scope="session")
def second_workdir(tmp_path_factory) -> Path:
    """Other weights for the same classes and windows; not to be written to."""
    from tests.tiny import write_workdir

    return write_workdir(tmp_path_factory.mktemp("second"), 1, TINY_LABELS)
