"""Helpers that run the training program on the tiny config, launched or in the test's own process."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from rann_jax.main import run
from tests.conftest import REPOSITORY, launched
from tests.refusals import assert_one_error
from tests.tiny import get_config

TINY = "tests/tiny.py"


def rann(*arguments: object, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """Launch `python -m rann_jax.main` and wait for it to end."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "rann_jax.main", *map(str, arguments)],
        cwd=REPOSITORY,
        env=launched(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_one_line(result: subprocess.CompletedProcess, *says: str) -> None:
    assert result.returncode == 2, result.stderr
    assert_one_error(result.stderr, *says)


def free_port() -> int:
    """Return a port for processes that join."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def tiny(prepared: Path, **overrides) -> ConfigDict:
    config = get_config()
    config.prepared_dir = str(prepared)
    config.update_from_flattened_dict(overrides)
    return config


def run_tiny(
    config: ConfigDict | None, workdir: Path, mode: str = "train", checkpoint: str = "latest"
) -> None:
    run(config, workdir, mode=mode, checkpoint=checkpoint, quiet=True)
