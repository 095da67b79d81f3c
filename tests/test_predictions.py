"""Predictions come back as they were saved, and damaged or hostile files are refused in one line."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest

from rann_jax import ensemble, predictions
from rann_jax.errors import ConfigError
from rann_jax.predictions import Predictions
from tests.made_predictions import CLIPS, TARGETS, predicted
from tests.refusals import refused

pytestmark = pytest.mark.fast


def npz(**changes) -> bytes:
    """Return a predictions file with some arrays replaced, or left out if None."""
    saved = dataclasses.replace(predicted(0), max_crops=16)
    arrays = {f.name: np.asarray(getattr(saved, f.name)) for f in dataclasses.fields(Predictions)}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return file.getvalue()


def lying_header() -> bytes:
    """Return a file with an array that claims to hold a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 18)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("probabilities.npy", header.getvalue())
    return file.getvalue()


def encrypted() -> bytes:
    """Return a file that is encrypted according to its headers only."""
    file = bytearray(npz())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := file.find(signature, place + 1)) >= 0:
            file[place + flags] |= 1
    return bytes(file)


HOSTILE = {
    "encrypted": encrypted(),
    "empty": b"",
    "text": b"not a zip file",
    "cut": npz()[:-200],
    "pickle": npz(ids=np.array([{"a": 1}] * CLIPS, object)),
    "terabyte": lying_header(),
    "missing": npz(fingerprint=None),
    "nan": npz(probabilities=np.full(TARGETS.shape, np.nan, np.float32)),
    "negative": npz(probabilities=np.full(TARGETS.shape, -1, np.float32)),
    "unnormalised": npz(probabilities=np.zeros(TARGETS.shape, np.float32)),
    "float64": npz(probabilities=np.zeros(TARGETS.shape)),
    "shape": npz(probabilities=np.zeros((CLIPS, 4), np.float32)),
    "targets": npz(targets=TARGETS * 2),
    "task": npz(task=np.array("regression")),
    "step": npz(step=np.array([1, 2])),
    "crops": npz(max_crops=np.array("many")),
    "repeated": npz(ids=np.array(["same"] * CLIPS)),
    "bytes": npz(ids=np.array([b"x"] * CLIPS)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path, capsys, name):
    path = predicted(0).save(tmp_path, "test")
    path.write_bytes(HOSTILE[name])
    assert str(path) in refused(ensemble.main, capsys, tmp_path)


@pytest.mark.parametrize("max_crops", [5, None])
def test_predictions_come_back_as_they_were(tmp_path, max_crops):
    """Files of earlier versions do not say how many crops were scored."""
    saved = dataclasses.replace(predicted(3), max_crops=max_crops)
    saved.save(tmp_path, "test")
    loaded = predictions.load(tmp_path, "test")
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(saved, field.name))


def test_predictions_of_any_size_come_back(tmp_path, monkeypatch):
    """Beyond MAX_BYTES, a file may take no more memory than it takes on the disk."""
    monkeypatch.setattr(predictions, "MAX_BYTES", 1000)
    saved = predicted(3)
    path = saved.save(tmp_path, "test")
    np.testing.assert_array_equal(predictions.load(tmp_path, "test").probabilities, saved.probabilities)
    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays)
    with pytest.raises(ConfigError, match=r"test\.npz cannot be read: its arrays take more than 1000 bytes"):
        predictions.load(tmp_path, "test")
