"""Exported models, loaded in another process that cannot import rann_jax."""

import json
import os
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import rann_jax
from rann_jax.experiment import build
from rann_jax.export import FORMATS, Exported, main
from rann_jax.steps import make_eval_step
from tests.conftest import TINY_LABELS
from tests.refusals import assert_one_error
from tests.tiny import get_config, write_workdir

# With -P and another folder, neither the repository nor the installed package can be imported.
WITHOUT = """
import sys
sys.modules["rann_jax"] = sys.modules["flax"] = None
import numpy as np
"""
RUN_STABLEHLO = """
import json, jax, jax.export
model = jax.export.deserialize(open("model.stablehlo", "rb").read())
about = json.load(open("model.stablehlo.json"))
waves = np.load("waves.npy")
assert waves.shape[1] == about["input"]["shape"][1]
np.savez("answers.npz", *[np.asarray(model.call(waves[:n])) for n in (1, 3)])
"""
RUN_ONNX = """
import json, onnxruntime
assert "jax" not in sys.modules
model = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
about = json.load(open("model.onnx.json"))
(given,), (result,) = model.get_inputs(), model.get_outputs()
assert (given.name, given.shape) == (about["input"]["name"], about["input"]["shape"])
assert (result.name, result.shape) == ("probabilities", ["batch", 10])
inputs = np.load("inputs.npy")
np.savez("answers.npz", *[model.run(None, {given.name: inputs[:n]})[0] for n in (1, 3)])
"""
READ_SAFETENSORS = """
import json
from safetensors import safe_open
with safe_open("model.safetensors", "numpy") as file:
    np.savez("weights.npz", **{name: file.get_tensor(name) for name in file.keys()})
    about = json.loads(file.metadata()["model"])
    assert about["labels"][9] == "class 9"
    assert about == json.load(open("model.safetensors.json"))
"""


def elsewhere(code: str, folder) -> None:
    subprocess.run([sys.executable, "-P", "-c", WITHOUT + code], cwd=folder, check=True, timeout=300)


@pytest.fixture(scope="module")
def tagger(tiny_workdir):
    return rann_jax.Tagger.load(tiny_workdir, batch_size=3)


def test_stablehlo_gives_the_results_of_the_tagger(tiny_workdir, tagger, sounds, tmp_path, capsys):
    pytest.importorskip("flatbuffers", reason="the extra 'export' is not installed")
    assert main([str(tiny_workdir), "--to", "stablehlo", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "model.stablehlo")
    np.save(tmp_path / "waves.npy", sounds)
    elsewhere(RUN_STABLEHLO, tmp_path)
    expected = tagger.predict(sounds)
    assert np.ptp(expected, axis=0).max() > 0.01  # the results depend on the sound
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_allclose(answers["arr_0"], expected[:1], atol=1e-4)
        np.testing.assert_allclose(answers["arr_1"], expected, atol=1e-4)
    about = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert (about["sample_rate"], about["seconds"], about["task"]) == (16000, 0.5, "classification")
    assert tuple(about["labels"]) == tagger.labels


@pytest.fixture(scope="module")
def sounds(tagger) -> np.ndarray:
    """Noise, a tone and silence."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, tagger.crop_samples)
    tone = np.sin(0.3 * np.arange(tagger.crop_samples))
    return np.stack([noise, 0.1 * tone, np.zeros_like(tone)]).astype(np.float32)


@pytest.mark.parametrize(
    "changes",
    [{}, {"feature.name": "cqt"}, {"dtype": "bfloat16"}, {"model.remat": True}],
    ids=lambda changes: "".join(map(str, changes)) or "log_mel",
)
def test_onnxruntime_gives_the_results_of_the_tagger(changes, tiny_workdir, tagger, sounds, tmp_path, capsys):
    """The model runs in a process without JAX; for CQT it is only the network, behind this front end.

    Runs in bfloat16 or with rematerialised blocks export the same network, in float32.
    """
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    takes_image = "feature.name" in changes
    workdir = write_workdir(tmp_path / "run", 0, TINY_LABELS, **changes) if changes else tiny_workdir
    assert main([str(workdir), "--to", "onnx", "--out", str(tmp_path)]) == 0
    tagger = rann_jax.Tagger.load(workdir, batch_size=3) if takes_image else tagger
    assert ("ONNX cannot express cqt" in capsys.readouterr().err) == takes_image
    np.save(tmp_path / "inputs.npy", tagger.experiment.front_end(sounds) if takes_image else sounds)
    elsewhere(RUN_ONNX, tmp_path)
    expected = tagger.predict(sounds)
    assert np.ptp(expected, axis=0).max() > 0.01  # the results depend on the sound
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_allclose(answers["arr_0"], expected[:1], atol=1e-4)
        np.testing.assert_allclose(answers["arr_1"], expected, atol=1e-4)


@pytest.mark.fast
def test_formats_in_one_folder_keep_their_own_descriptions(tiny_workdir, tmp_path, monkeypatch):
    """If ONNX cannot express the front end, one format takes an image and the other a waveform."""
    for to, given in (("stablehlo", ("wave", (8000,))), ("onnx", ("image", (16, 16)))):
        monkeypatch.setitem(FORMATS, to, lambda tagger, given=given: Exported(b"", *given))
        assert main([str(tiny_workdir), "--to", to, "--out", str(tmp_path)]) == 0
    files = ["model.onnx", "model.onnx.json", "model.stablehlo", "model.stablehlo.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    inputs = [json.loads((tmp_path / name).read_text())["input"] for name in files[1::2]]
    assert [(entry["name"], entry["shape"]) for entry in inputs] == [
        ("image", ["batch", 16, 16]),
        ("wave", ["batch", 8000]),
    ]


@pytest.mark.fast
def test_a_folder_that_cannot_be_written_to_is_refused_with_the_option(tiny_workdir, monkeypatch, capsys):
    monkeypatch.setitem(FORMATS, "onnx", lambda tagger: pytest.fail("it is refused before the work"))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tiny_workdir))
    assert main([str(tiny_workdir), "--to", "onnx"]) == 2
    says = f"error: --out={tiny_workdir}/export: {tiny_workdir} cannot be written to: name another folder"
    assert capsys.readouterr().err.startswith(says)


@pytest.mark.parametrize("name", ["mfcc", "gfcc", "chroma", "cqt", "tempogram", "cwt", "wavegram"])
def test_every_front_end_has_a_symbolic_batch(name):
    config = get_config()
    config.feature = {"name": name, "frames_per_second": 32, "n_bins": 12 if name == "chroma" else 16}
    experiment = build(config)
    step = make_eval_step(experiment.model, experiment.front_end, task="classification")
    shapes = jax.eval_shape(experiment.initial_state).ema_variables
    (batch,) = jax.export.symbolic_shape("batch")
    wave = jax.ShapeDtypeStruct((batch, experiment.crop_samples), jnp.float32)
    exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(shapes, wave)
    assert str(exported.out_avals[0].shape) == "(batch, 10)"


def test_safetensors_has_every_weight(tiny_workdir, tagger, tmp_path, capsys):
    pytest.importorskip("safetensors", reason="the extra 'export' is not installed")
    assert main([str(tiny_workdir), "--to", "safetensors", "--out", str(tmp_path)]) == 0
    elsewhere(READ_SAFETENSORS, tmp_path)
    count = 0
    with np.load(tmp_path / "weights.npz") as weights:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tagger.variables):
            np.testing.assert_array_equal(weights["/".join(key.key for key in path)], leaf)
            count += 1
        assert len(weights.files) == count
    about = json.loads((tmp_path / "model.safetensors.json").read_text())
    assert about["content"] == "weights"  # which have no input and output
    assert not about.keys() & {"input", "output"}
    assert (about["sample_rate"], about["seconds"], about["labels"]) == (16000, 0.5, TINY_LABELS)


@pytest.mark.fast
def test_wrong_use_is_one_line(tmp_path, tiny_workdir, monkeypatch, capsys):
    for package in ("safetensors", "flatbuffers", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    for arguments, says in (
        ([str(tmp_path), "--to", "stablehlo"], "holds no checkpoints"),
        ([str(tiny_workdir), "--to", "safetensors"], "needs safetensors: pip install"),
        ([str(tiny_workdir), "--to", "stablehlo"], "needs flatbuffers: pip install"),
        ([str(tiny_workdir), "--to", "onnx"], 'needs onnx: pip install -e ".[onnx]"'),
    ):
        assert main(arguments) == 2
        assert_one_error(capsys.readouterr().err, says)


@pytest.mark.fast
def test_an_operation_without_a_rule_is_one_line(tmp_path, monkeypatch, capsys):
    """A network that takes a waveform beside an image cannot be exported without its front end."""
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    from rann_jax.interop.onnx_rules import RULES

    monkeypatch.delitem(RULES, "conv_general_dilated")
    workdir = write_workdir(tmp_path, 0, TINY_LABELS, **{"feature.name": "log_mel+wavegram"})
    assert main([str(workdir), "--to", "onnx"]) == 2
    assert capsys.readouterr().err == (
        "error: --to onnx: there is no rule for the operation conv_general_dilated: use --to stablehlo\n"
    )
