"""Several models on the same windows: every fusion rule, the conflict, and models that cannot be fused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from rann_jax import hear
from rann_jax.errors import ConfigError
from rann_jax.fusion import RULES, binary_frames, conflict
from rann_jax.tagging.tagger_ensemble import TaggerEnsemble
from tests.fake_models import ZADEH, constant

pytestmark = pytest.mark.fast


def test_dempster_shafer_by_hand():
    """Zadeh's paradox, in every window of a sound."""
    ensemble = TaggerEnsemble([constant(p) for p in ZADEH], rule="ds", batch_size=4)
    timeline = ensemble.timeline(np.zeros(2000, np.float32), 8000)
    assert timeline.probabilities.shape == (9, 3)
    np.testing.assert_allclose(timeline.probabilities, np.tile([0, 1, 0], (9, 1)), atol=1e-6)
    np.testing.assert_allclose(timeline.conflict, 1 - 0.01**2, atol=1e-6)
    assert next(iter(ensemble.tag(np.zeros(2000, np.float32), 8000))) == "cat"


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_for_classification(rule):
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6]], np.float32)
    ensemble = TaggerEnsemble([constant(p) for p in probs], rule=rule)
    fused, contradiction, by_model = ensemble.infer(np.zeros((2, 400), np.float32))
    np.testing.assert_array_equal(by_model, np.stack([probs, probs]))
    np.testing.assert_allclose(fused, np.tile(RULES[rule](probs), (2, 1)), atol=1e-6)
    np.testing.assert_allclose(contradiction, 1 - probs.prod(axis=0).sum(), atol=1e-6)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_for_tagging(rule):
    probs = np.array([[0.9, 0.2, 0.6], [0.8, 0.1, 0.4]], np.float32)
    ensemble = TaggerEnsemble([constant(p, task="tagging") for p in probs], rule=rule)
    fused, contradiction, _ = ensemble.infer(np.zeros((1, 400), np.float32))
    np.testing.assert_allclose(fused[0], RULES[rule](binary_frames(probs))[..., 0], atol=1e-6)
    np.testing.assert_allclose(contradiction, conflict(binary_frames(probs)).mean(), atol=1e-6)


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_weights_of_the_average(task):
    """Such as those that are fitted on other clips; their scale does not matter, and one may be zero."""
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6]], np.float32)
    for weights in ([1, 3, 4], np.array([0.5, 0.5, 0.0])):
        ensemble = TaggerEnsemble([constant(p, task=task) for p in probs], weights=weights)
        fused, *_ = ensemble.infer(np.zeros((2, 400), np.float32))
        np.testing.assert_allclose(fused[1], np.average(probs, axis=0, weights=weights), atol=1e-6)


@pytest.mark.parametrize(
    "weights", [[1], [1, 2, 3], [1, -1], [0, 0], [1, np.nan], ["a", "b"], "12", 2.0], ids=str
)
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ConfigError, match="weights: give 2 numbers, one per model, not negative and not all"):
        TaggerEnsemble([constant(p) for p in ZADEH], weights=weights)


def test_only_the_average_takes_weights():
    with pytest.raises(ConfigError, match="weights: only the rule wa takes weights, not ds: leave one"):
        TaggerEnsemble([constant(p) for p in ZADEH], rule="ds", weights=[1, 2])


def test_windows_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"windows must be \(W, 400\)"):
        TaggerEnsemble([constant(p) for p in ZADEH]).predict(np.zeros((1, 800), np.float32))


def test_its_models_and_their_embeddings(tiny_workdir, second_workdir):
    """HEAR's functions take an ensemble as they take a model."""
    ensemble = TaggerEnsemble.load([tiny_workdir, second_workdir], weights=[1, 3], batch_size=2)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 9000).astype(np.float32)
    each = [tagger.embed(wave, 16000) for tagger in ensemble.taggers]
    both = ensemble.embed(wave, 16000)
    np.testing.assert_array_equal(both, np.concatenate(each))
    assert both.shape == (ensemble.embedding_size,) == (256,)
    scene = hear.get_scene_embeddings(wave[None], hear.Model(ensemble))
    np.testing.assert_array_equal(scene[0], both)
    windows = wave[None, :8000]
    assert ensemble.embed_windows(windows).shape == (1, 256)
    networks = "wa of [rann-0.5x4-1, log_mel; rann-0.5x4-1, log_mel]"
    said = f"TaggerEnsemble({networks}, 10 classes, 16000 Hz, windows of 0.5 s)"
    assert repr(ensemble) == said
    again = pickle.loads(pickle.dumps(ensemble))
    assert repr(again) == said
    assert again.weights == (1.0, 3.0)
    np.testing.assert_array_equal(again.predict(windows), ensemble.predict(windows))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": ("dog", "rain", "cat")}, "models 1 and 2 differ in their labels:"),
        ({"task": "tagging"}, r"task \(classification and tagging\)"),
        ({"sample_rate": 16000}, r"sample_rate \(8000 and 16000\)"),
        ({"window_seconds": 0.1}, r"window_seconds \(0.05 and 0.1\)"),
    ],
    ids=["labels", "task", "rate", "window"],
)
def test_models_that_cannot_be_fused_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        TaggerEnsemble([constant(ZADEH[0]), constant(ZADEH[1], **changes)])


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="'mean': use one of wa, ds"):
        TaggerEnsemble([constant(p) for p in ZADEH], rule="mean")
    with pytest.raises(ConfigError, match="two models"):
        TaggerEnsemble([constant(ZADEH[0])])


@pytest.mark.parametrize("kind", [str, Path])
def test_one_folder_is_not_a_list_of_them(kind, tmp_path):
    """A str would be read letter by letter, as folders named "/", "t" and so on."""
    with pytest.raises(ConfigError, match=f"workdirs={tmp_path}: an ensemble takes a list of two"):
        TaggerEnsemble.load(kind(tmp_path))
