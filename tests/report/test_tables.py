"""Files of result tables."""

import os
import subprocess
import sys

import pytest

from rann_jax.report import tables
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast


def test_tables_are_utf_8_in_any_locale(tmp_path):
    """Batch systems may set an ASCII locale."""
    rows = [{"label": "Füße", "accuracy": 0.5}]
    path = tmp_path / "table.csv"
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import pathlib, sys; from rann_jax.report import tables;"
            f"tables.write_csv(pathlib.Path(sys.argv[1]), {rows!a})",
            str(path),
        ],
        env=os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        cwd=REPOSITORY,
        check=True,
    )
    assert tables.read_csv(path, text=("label",), numbers=("accuracy",)) == rows
