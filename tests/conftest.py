"""Test-wide settings: strict dtypes and ranks, eight CPU devices, and the folder of real recordings.

Real recordings are not part of the repository. Tests that need them use the `data_dir` fixture, which takes
the folder from the environment variable RANN_TEST_DATA (default `shared/data` beside the repository) and
skips the test if recordings are missing.

Most of the tests' time goes into compilation. Compiled programs are kept in one folder for the whole session,
shared by both workers and by the programs that tests launch. Launched programs run only briefly, so LLVM
hardly optimises them and XLA's older emitters emit their fusions, which takes half as long; XLA's own passes,
which decide what is computed, stay on. A test's own process compiles as users do, because without LLVM's
optimisations the gradients of a wavegram were seen to be NaN. Modules that use `quickly_compiled` are the
exception.

There are as many workers as cores on the machines that test a change, so PyTorch gets one thread. On busy
cores its threads wait for each other in loops, and its twins of small networks took four times as long.
"""

import gc
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from jax.sharding import Mesh

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs parse absl flags from the command line; tests have none to parse.
flags.FLAGS.mark_as_parsed()

# JAX options: the folder of compiled programs, and the shortest compilation that is worth keeping.
CACHE, WORTHWHILE = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"

# XLA's newer emitters take half of the compile time of a training step when LLVM does not optimise.
# JAX 0.11 and newer have no older emitters.
EMITTERS = "xla_cpu_use_fusion_emitters"

# Folders of real recordings.
RECORDINGS = ("audioset_meta", "esc10_44k1", "esc50_16k", "fsdd", "ravdess")
TINY_LABELS = [f"class {c}" for c in range(10)]
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real recordings, or skip with a message on how to provide it."""
    folder = Path(os.environ.get("RANN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    missing = [name for name in RECORDINGS if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"{folder} has no {', '.join(missing)}: RANN_TEST_DATA wants what CONTRIBUTING.md lists")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs, in this process and (by the environment) in xdist workers and launched ones."""
    if not is_worker(config):
        launched = {
            CACHE: tempfile.mkdtemp(prefix="rann_jax_tests_"),
            WORTHWHILE: "0",
            "jax_disable_most_optimizations": "true",
            "omp_num_threads": "1",
        }
        os.environ.update({name.upper(): value for name, value in launched.items()})
    jax.config.update(CACHE, os.environ[CACHE.upper()])
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update(WORTHWHILE, 0.2)  # tests compile thousands of small programs, most of them only once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no worker starts one of them at the end."""
    longest = [
        "test_processes",
        "test_tutorials",
        "test_main",
        "test_torch_rann",
        "test_finetune",
        "test_resume",
        "test_wavegram",
        "test_crossval",
        "test_steps",
        "test_stretch",
    ]
    rank = {f"{name}.py": place for place, name in enumerate(longest)}
    items.sort(key=lambda item: rank.get(item.path.name, len(longest)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect garbage rarely: most objects are modules and traced programs, which stay to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        shutil.rmtree(os.environ[CACHE.upper()], ignore_errors=True)


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def launched() -> dict[str, str]:
    """Return the environment for a program that trains or evaluates.

    Only launched programs get the XLA flags. With them a test's own process would not compile as users do.
    """
    from rann_jax.devices.compiler import known_options

    flags = [f"--{name}=false" for name in known_options(**{EMITTERS: False})]
    return os.environ | {"XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()}


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """Compile with few optimisations, and networks with the older emitters, as launched programs do."""
    from rann_jax.devices import compiler

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compiler.CPU_OPTIONS, EMITTERS, False)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Use one of the eight devices: its programs compile faster, and other tests cover shared batches."""
    from rann_jax import distributed

    real = distributed.data_mesh

    def mesh(model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
        return real(model, jax.devices()[:1] if devices is None else devices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "data_mesh", mesh)
        yield


@pytest.fixture
def main_here(monkeypatch) -> Callable[[Sequence[str]], int]:
    """A function that runs `python -m rann_jax.main` in this process and returns its exit code.

    Flags are restored afterwards.
    """
    from rann_jax import main
    from rann_jax.command_line.program import guarded

    def call(arguments: Sequence[str]) -> int:
        command = ["rann_jax.main", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(main.distributed, "start", lambda *_, **__: None)  # JAX has arrays already
        with flagsaver.flagsaver(), warnings.catch_warnings():
            # ml_collections imports the config file with a deprecated method.
            warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
            return guarded(lambda: main._program(main._parse_flags(command)))

    return call


@pytest.fixture(scope="session")
def tiny_workdir(tmp_path_factory) -> Path:
    """A workdir of tests/tiny.py with random weights. Do not write to it."""
    from tests.tiny import write_workdir

    return write_workdir(tmp_path_factory.mktemp("tiny"), 0, TINY_LABELS)


@pytest.fixture(scope="session")
def second_workdir(tmp_path_factory) -> Path:
    """A workdir with other weights for the same classes and windows. Do not write to it."""
    from tests.tiny import write_workdir

    return write_workdir(tmp_path_factory.mktemp("second"), 1, TINY_LABELS)
