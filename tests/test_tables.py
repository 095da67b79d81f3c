"""Tables of results as files."""

import os
import subprocess
import sys

import pytest

from rann_jax.report import tables
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast


def test_labels_are_utf_8_wherever_a_table_is_written(tmp_path):
    """In a locale of ASCII too, as batch systems set it."""
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
