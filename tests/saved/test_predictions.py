"""Predictions come back as they were saved, and damaged or hostile files are refused in one line."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest

from rann_jax import ensemble
from rann_jax.errors import ConfigError
from rann_jax.saved import predictions
from rann_jax.saved.predictions import Predictions
from tests.made_predictions import CLIPS, LABELS, TARGETS, predicted
from tests.refusals import refused

pytestmark = pytest.mark.fast


def npz(**changes) -> bytes:
    """Return a predictions file with some arrays replaced, or left out if None."""
    saved = dataclasses.replace(predicted(0), max_crops=16)
    arrays = {f.name: np.asarray(getattr(saved, f.name)) for f in dataclasses.fields(Predictions)}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return file.getvalue()


def write_other(folder, **changes) -> None:
    """Write what another program needs to write, with some arrays replaced, added, or left out if None."""
    model = predicted(1)
    arrays = {
        "ids": model.ids,
        "targets": model.targets.astype(np.int64),
        "probabilities": model.probabilities.astype(np.float64),
        "labels": model.labels,
    }
    path = folder / "predictions" / "test.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})


def lying_header(name: str, descr: str, *shape: int) -> bytes:
    """Return a file with an array that claims to hold more than it does, and the others that are needed."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    others = npz(**{name: None, "fingerprint": None, "step": None, "max_crops": None})
    file = io.BytesIO(others)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(f"{name}.npy", header.getvalue())
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
    "terabyte": lying_header("probabilities", "<f4", 1 << 20, 1 << 18),
    "empty names": lying_header("ids", "|S0", 1 << 24),  # reading so many takes ten seconds
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


def test_empty_names_are_refused_before_they_are_read(tmp_path):
    """They take no bytes, so that a small file could declare any number of them."""
    path = predicted(0).save(tmp_path, "test")
    path.write_bytes(HOSTILE["empty names"])
    with pytest.raises(ConfigError, match=r"ids\.npy is not as long as it says"):
        predictions.load(tmp_path, "test")


@pytest.mark.parametrize("max_crops", [5, None])
def test_predictions_come_back_as_they_were(tmp_path, max_crops):
    """Files of earlier versions do not say how many crops were scored."""
    saved = dataclasses.replace(predicted(3), max_crops=max_crops)
    saved.save(tmp_path, "test")
    loaded = predictions.load(tmp_path, "test")
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(saved, field.name))


def test_predictions_can_be_compared_and_hashed():
    one = predicted(0)
    assert one == one
    assert one != predicted(0)
    assert len({one, one}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ids": np.array([f"clip{i}".encode() for i in range(CLIPS)]), "labels": LABELS.astype("S5")},
        {"targets": TARGETS.astype(bool), "probabilities": predicted(1).probabilities.astype(">f4")},
        {"targets": TARGETS.astype(np.float32), "task": np.array(b"classification")},
    ],
    ids=["float64", "bytes", "big endian", "float targets"],
)
def test_another_program_needs_four_arrays(tmp_path, changes):
    write_other(tmp_path, **changes)
    loaded = predictions.load(tmp_path, "test")
    model = dataclasses.replace(predicted(1), fingerprint="", step=0)
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(model, field.name))
    assert (loaded.targets.dtype, loaded.probabilities.dtype) == (np.uint8, np.float32)
    loaded.save(tmp_path, "again")
    assert predictions.load(tmp_path, "again").fingerprint == ""


def test_names_may_be_numbers(tmp_path):
    write_other(tmp_path, ids=np.arange(CLIPS))
    assert predictions.load(tmp_path, "test").ids.tolist() == [str(i) for i in range(CLIPS)]


def test_the_task_of_another_program(tmp_path):
    multi_hot = TARGETS | np.roll(TARGETS, 1, axis=1) * (np.arange(CLIPS) < 5)[:, None]
    write_other(tmp_path, targets=multi_hot)
    assert predictions.load(tmp_path, "test").task == "tagging"
    halved = predicted(1).probabilities / 2
    write_other(tmp_path, probabilities=halved, task=np.array("tagging"))
    np.testing.assert_array_equal(predictions.load(tmp_path, "test").probabilities, halved)
    write_other(tmp_path, probabilities=halved)
    with pytest.raises(
        ConfigError,
        match=r"test\.npz: .* clip clip0 sum to 0\.5: divide them by their sum, or write task='tagging'$",
    ):
        predictions.load(tmp_path, "test")


def test_rounding_above_one_is_one(tmp_path):
    write_other(tmp_path, probabilities=TARGETS * 1.000001)
    np.testing.assert_array_equal(predictions.load(tmp_path, "test").probabilities, TARGETS)


WRONG = {
    "no labels": ({"labels": None}, "labels missing: write ids"),
    "class indices": (
        {"targets": TARGETS.argmax(1)},
        r"targets are \(40,\) for 40 clips and 3 labels: write ids",
    ),
    "graded": ({"targets": TARGETS / 2}, "targets are not 0 or 1: write ids"),
    "text": ({"targets": TARGETS.astype(str)}, "targets are not 0 or 1: write ids"),
    "complex": ({"probabilities": TARGETS * 1j}, "probabilities are not float32: write ids"),
    "percent": ({"probabilities": TARGETS * 100.0}, r"not within \[0, 1\]: write ids"),
    "huge": ({"probabilities": TARGETS * 1e300}, r"not within \[0, 1\]: write ids"),
    "nan": ({"probabilities": TARGETS * np.nan}, r"not within \[0, 1\]: write ids"),
    "transposed": ({"probabilities": TARGETS.T * 1.0}, r"probabilities are \(3, 40\), not \(40, 3\)"),
    "fractions": ({"ids": np.arange(CLIPS) / 2}, "ids and labels are not lists of names: write ids"),
    "latin-1": ({"labels": np.array([b"\xe4", b"b", b"c"])}, "cannot be read: .*utf-8"),
    "objects": (
        {"ids": np.array(["a"] * CLIPS, object)},
        r"ids\.npy holds Python objects: write np\.asarray",
    ),
    "sums": (
        {"probabilities": TARGETS * 0.9, "task": np.array("classification")},
        "do not sum to 1: write ids",
    ),
    "a run's": ({"step": np.int64(3)}, "fingerprint and task missing: score the run again"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_of_another_program(tmp_path, name):
    changes, says = WRONG[name]
    write_other(tmp_path, **changes)
    with pytest.raises(ConfigError, match=rf"test\.npz:? .*{says}" if "cannot" in says else says):
        predictions.load(tmp_path, "test")


def test_clips_in_the_order_of_others():
    model = predicted(0)
    order = np.random.default_rng(0).permutation(CLIPS)
    rows = {name: getattr(model, name)[order] for name in ("ids", "targets", "probabilities")}
    back = predictions.in_order(dataclasses.replace(model, **rows), model.ids)
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(model, field.name))
    assert predictions.in_order(model, model.ids[1:]) is model
    assert predictions.in_order(model, np.roll(model.ids, 1).astype("U99")).ids[0] == model.ids[-1]
    assert predictions.in_order(model, predicted(0, first_clip=1).ids) is model


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
