"""Test-wide settings: strict dtypes and ranks, eight CPU devices, and where real sound is found.

Real recordings are not part of the repository. Tests that need them take the `data_dir` fixture, which
reads the folder from the environment variable RANN_TEST_DATA (default `../shared/data` beside the
repository) and skips where it is absent.

Most of what the tests cost is compilation. Its products are kept in one folder for the whole session, for
both workers and for the programs that tests launch. Those run for a moment, so LLVM hardly optimises them,
and what XLA fuses is emitted by its older emitters, which takes half as long; XLA's own passes, which decide
what is computed, stay. What a test computes itself is compiled as users compile it, but for modules that
take `quickly_compiled`: without LLVM's optimisations the gradients of a wavegram were seen to be NaN.
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

# grain reads absl flags; the command line parses them, tests have none to parse.
flags.FLAGS.mark_as_parsed()

# JAX's names of where compiled programs are kept and of how long a compilation must take to be kept.
CACHE, WORTHWHILE = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"

# XLA's newer emitters: half of the time in which a training step is compiled without LLVM's optimisations.
# From JAX 0.11 on there are no older ones.
EMITTERS = "xla_cpu_use_fusion_emitters"

# Folders of real recordings.
RECORDINGS = ("audioset_meta", "esc10_44k1", "esc50_16k", "fsdd", "ravdess")
TINY_LABELS = [f"class {c}" for c in range(10)]
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real recordings, or a skip that says how to provide it."""
    folder = Path(os.environ.get("RANN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    missing = [name for name in RECORDINGS if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"{folder} has no {', '.join(missing)}: RANN_TEST_DATA wants what CONTRIBUTING.md lists")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs: here, and by the environment in workers of xdist and in launched programs."""
    if not is_worker(config):
        launched = {
            CACHE: tempfile.mkdtemp(prefix="rann_jax_tests_"),
            WORTHWHILE: "0",
            "jax_disable_most_optimizations": "true",
        }
        os.environ.update({name.upper(): value for name, value in launched.items()})
    jax.config.update(CACHE, os.environ[CACHE.upper()])
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update(WORTHWHILE, 0.2)  # a test's own process compiles thousands of small ones, most once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left with one of them at the end."""
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
    """Look for garbage seldom: most of what there is, modules and traced programs, stays to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        shutil.rmtree(os.environ[CACHE.upper()], ignore_errors=True)


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def launched() -> dict[str, str]:
    """The environment of a program that trains or evaluates.

    XLA's flags are told to it alone: of them a test's own process would be no longer what users compile.
    """
    from rann_jax.compiler import known_options

    flags = [f"--{name}=false" for name in known_options(**{EMITTERS: False})]
    return os.environ | {"XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()}


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """Few optimisations, and for networks the older emitters, as the programs that tests launch have."""
    from rann_jax import compiler

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compiler.CPU_OPTIONS, EMITTERS, False)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Of the eight. That they share batches is tested elsewhere; for one a training is compiled sooner."""
    from rann_jax import distributed

    real = distributed.data_mesh

    def mesh(model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
        return real(model, jax.devices()[:1] if devices is None else devices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "data_mesh", mesh)
        yield


@pytest.fixture
def main_here(monkeypatch) -> Callable[[Sequence[str]], int]:
    """`python -m rann_jax.main` in this process, whose flags are put back: its exit code."""
    from rann_jax import main
    from rann_jax.program import guarded

    def call(arguments: Sequence[str]) -> int:
        command = ["rann_jax.main", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(main.distributed, "start", lambda *_, **__: None)  # arrays are there already
        with flagsaver.flagsaver(), warnings.catch_warnings():
            # How ml_collections imports the file is its own affair.
            warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
            return guarded(lambda: main._program(main._parse_flags(command)))

    return call


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
