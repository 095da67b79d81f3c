"""A tagger from one's own network, weights and front end: it is what it was made from, also when saved."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax.core import freeze
from jax.sharding import AxisType

from input_pipeline.errors import DataError
from rann_jax import Tagger, TaggerEnsemble, models, predict
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.export import description, safetensors
from rann_jax.features import front_end
from rann_jax.features.front_end import FRONT_ENDS
from rann_jax.tagging.from_parts import _config
from rann_jax.training.pretrained import load
from tests.tiny import filled

LABELS = ["dog", "cat", "rain"]
SMALL = {"sample_rate": 16000, "seconds": 0.5, "frames_per_second": 32, "n_bins": 16}


def parts(end="log_mel", network="rann-8x4-1", **options):
    """Return a network, random variables as NumPy arrays, and a front end."""
    features = front_end(end, **SMALL)
    options = {"num_classes": 3, "blocks_per_stage": 1, **features.network_options, **options}
    model = models.create(network, **options)
    image = jax.eval_shape(features, jax.ShapeDtypeStruct((1, features.n_samples), jnp.float32))
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), image)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), empty))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)
    return model, jax.device_get(filled(shapes, 0)), features


@pytest.fixture(scope="module")
def made():
    return parts()


@pytest.fixture(scope="module")
def saved(made, tmp_path_factory):
    """A tagger of these parts, and the workdir that it has saved."""
    model, variables, features = made
    tagger = Tagger.of(model, variables, features, LABELS, task="tagging", batch_size=2)
    workdir = tmp_path_factory.mktemp("of") / "w"
    tagger.save(workdir)
    return tagger, workdir


WINDOWS = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000)).astype(np.float32)


def test_it_computes_what_the_parts_compute(made, saved):
    model, variables, features = made
    expected = jax.nn.sigmoid(model.apply(variables, features(WINDOWS)))
    np.testing.assert_allclose(saved[0].predict(WINDOWS), expected, atol=1e-5)
    assert repr(saved[0]) == "Tagger(rann-0.5x4-1, log_mel, 3 classes, 16000 Hz, windows of 0.5 s)"


def test_it_is_the_same_from_its_workdir(saved):
    tagger, workdir = saved
    again = Tagger.load(workdir)
    assert (again.labels, again.task) == (tuple(LABELS), "tagging")
    np.testing.assert_array_equal(again.predict(WINDOWS), tagger.predict(WINDOWS))
    config = json.loads((workdir / "config.json").read_text())
    assert config["feature"]["n_bins"] == 16
    assert config["model"]["blocks_per_stage"] == 1


def test_programs_take_its_workdir(saved, tmp_path, capsys):
    tagger, workdir = saved
    soundfile.write(tmp_path / "a.wav", WINDOWS[0], 16000, subtype="FLOAT")
    assert predict.main([str(workdir), str(tmp_path / "a.wav"), "--json", "--quiet"]) == 0
    (tag, *_) = json.loads(capsys.readouterr().out)["tags"]
    assert tag["probability"] == pytest.approx(tagger.tag_file(tmp_path / "a.wav")[tag["label"]], abs=1e-5)
    pytest.importorskip("safetensors")
    assert safetensors(Tagger.load(workdir)).content
    assert description(tagger)["config"]["task"] == "tagging"


def test_another_run_starts_from_it(saved):
    tagger, workdir = saved
    config = tagger.experiment.config.copy_and_resolve_references()
    config.init_from = str(workdir)
    assert load(build(config)).labels == tuple(LABELS)


def test_a_workdir_is_not_overwritten(saved):
    tagger, workdir = saved
    before = (workdir / "config.json").read_text()
    with pytest.raises(ConfigError, match=f"workdir: {workdir} holds a run already: name another folder"):
        tagger.save(workdir)
    assert (workdir / "config.json").read_text() == before


def test_variables_are_copied(made):
    """A training step that donates its state deletes its buffers; other types and FrozenDicts are taken."""
    model, variables, features = made
    own = freeze(jax.tree.map(jnp.asarray, variables))
    tagger = Tagger.of(model, own, features, LABELS, task="classification")
    for leaf in jax.tree.leaves(own):
        leaf.delete()
    assert np.isfinite(tagger.predict(WINDOWS)).all()
    mutable = jax.tree.map(np.array, variables)
    tagger = Tagger.of(model, mutable, features, LABELS, task="classification")
    for leaf in jax.tree.leaves(mutable):
        leaf[...] = np.nan
    jax.tree.map(np.testing.assert_array_equal, tagger.variables, variables)
    halves = jax.tree.map(lambda leaf: leaf.astype(np.float16), variables)
    tagger = Tagger.of(model, halves, features, LABELS, task="classification")
    assert {leaf.dtype for leaf in jax.tree.leaves(tagger.variables)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_every_front_end_is_built_again(name):
    """Also its options, and NumPy's numbers, which JSON does not know."""
    panns = name.startswith("panns")
    size = {} if panns else {"seconds": np.float32(0.5), "frames_per_second": np.int64(32)}
    features = front_end(name, sample_rate=np.int64(16000), **size)
    network = "wavegram_logmel_cnn14" if name == "panns_log_mel+wavegram" else "cnn14"
    model = models.create(network if panns else "rann-1x4-2", num_classes=3, **features.network_options)
    config = json.loads(_config(model, features, LABELS, "tagging").to_json())
    options = config["feature"]
    end = front_end(sample_rate=config["sample_rate"], seconds=config["t_c"], **options)
    assert end == features


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("rann-8x4-1", {}),
        ("rann-0.25x8-3", {"blocks_per_stage": 2, "shortcut_norm": False, "lanes": 128}),
        ("rann-2x1-2", {"dtype": jnp.bfloat16, "remat": True, "wavegram_shape": (16, 16)}),
        *((name, {"width": 16}) for name in ("cnn14", "resnet38", "wavegram_logmel_cnn14")),
    ],
)
@pytest.mark.fast
def test_every_network_is_named(network, options):
    model = models.create(network, num_classes=3, **options)
    seconds = models.crop_seconds(network) or 1.0
    naming = models.naming(model, seconds=seconds)
    assert naming == {"name": network, **options}
    assert models.create(num_classes=3, **naming) == model


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "multilabel"}, "task='multilabel': use one of classification, tagging"),
        ({"task": "classify"}, "did you mean 'classification'"),
        ({"labels": ["dog", "cat"]}, "labels: 2 names, but the model has 3 classes"),
        ({"front_end": lambda wave: wave}, "front_end: .* is not from features.front_end: make it there"),
        ({"model": object()}, "model: object is not a network of models.create: make it there"),
        ({"variables": [1]}, "variables: they are of type list: give {'params'"),
        ({"variables": {"params": {}}}, "variables: batch_stats/.* is absent there, .* in rann-0.5x4-1, and"),
        (
            {"model": models.create("rann-1x4-1", num_classes=3)},
            r"_block1.*absent there, \(.*, and \d+ more d",
        ),
        (
            {"front_end": front_end("log_mel", 16000, 0.5, 30)},
            "do not fit each other: .* multiple of 16, not 15",
        ),
        (
            {"model": models.create("rann-1x4-1", num_classes=3, wavegram_shape=(16, 16))},
            r"model: its wavegram_shape is \(16, 16\), but front end log_mel needs None",
        ),
        (
            {"model": models.create("rann-1x4-1", num_classes=3, dtype=jnp.float16)},
            "dtype must be one of float32, bfloat16, not 'float16'",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parts_that_do_not_fit_are_refused(made, changes, says):
    model, variables, features = made
    given = {"model": model, "variables": variables, "front_end": features, "labels": LABELS} | changes
    with pytest.raises(ConfigError, match=says):
        Tagger.of(**{"task": "tagging", **given})


def test_labels_are_those_of_a_data_set(made):
    with pytest.raises(DataError, match="labels: 'dog' names two classes"):
        Tagger.of(*made, ["dog", "cat", "dog"], task="tagging")


def test_a_package_that_hides_the_configs_is_told(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "configs.base", None)
    with pytest.raises(ConfigError, match="configs: another package of this name hides rann_jax's"):
        Tagger.of(*made, LABELS, task="tagging")


@pytest.mark.parametrize("method", ["predict", "embed_windows"])
def test_windows_in_the_byte_order_of_another_machine(saved, method):
    """A program of JAX that is compiled already would read their bytes as they are."""
    compute = getattr(saved[0], method)
    expected = compute(WINDOWS)
    np.testing.assert_array_equal(compute(WINDOWS.astype(WINDOWS.dtype.newbyteorder())), expected)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_it_tags_in_a_program_with_a_mesh(made, saved, kind):
    """As of a training loop on several devices; the tagger is on one."""
    tagger, _ = saved
    model, variables, features = made
    ensemble = TaggerEnsemble([tagger, tagger], batch_size=2)
    used = (tagger.predict, tagger.embed_windows, ensemble.predict)
    expected = [use(WINDOWS) for use in used]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        for use, result in zip(used, expected, strict=True):
            np.testing.assert_array_equal(use(WINDOWS), result)
        assert tagger.embedding_size == expected[1].shape[1]
        again = Tagger.of(model, variables, features, LABELS, task="tagging", batch_size=2)
        np.testing.assert_array_equal(again.predict(WINDOWS), expected[0])
