"""Initial weights: their sources, which arrays are taken, and what is refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from rann_jax import interop, optimizer
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.main import run
from rann_jax.state import create_state
from rann_jax.training import pretrained
from tests import tiny, tiny_panns
from tests.conftest import TINY_LABELS
from tests.small_network import IMAGES, Small

HEAD = {"params/fc2/kernel", "params/fc2/bias"}


def experiment_from(init_from, config=None, **overrides):
    config = tiny.get_config() if config is None else config
    config.update_from_flattened_dict({"init_from": str(init_from), **overrides})
    return build(config)


@pytest.fixture(scope="module")
def same(tiny_workdir):
    """An experiment like that of the workdir, and the workdir as its source."""
    experiment = experiment_from(tiny_workdir)
    return experiment, pretrained.load(experiment)


def test_all_arrays_are_taken_if_the_classes_are_the_same(same):
    experiment, source = same
    beginning = pretrained.begin(source, experiment, TINY_LABELS)
    assert (beginning.skipped, beginning.new) == ((), ())
    # The loaded arrays fill all parameters and statistics of the new state.
    state = jax.eval_shape(experiment.initial_state, dict(beginning.loaded))
    expected = flatten_dict({"params": state.params, "batch_stats": state.batch_stats})
    assert {path: leaf.shape for path, leaf in expected.items()} == {
        path: array.shape for path, array in beginning.loaded.items()
    }


@pytest.mark.parametrize("labels", [list(reversed(TINY_LABELS)), ["a", "b", "c"]], ids=["order", "number"])
def test_the_last_layer_is_new_if_the_classes_differ(tiny_workdir, same, labels):
    experiment = experiment_from(tiny_workdir, num_classes=len(labels))
    beginning = pretrained.begin(same[1], experiment, labels)
    assert set(beginning.skipped) == set(beginning.new) == HEAD
    assert ("params", "fc1", "kernel") in beginning.loaded
    lines = str(beginning).splitlines()
    count = len(beginning.loaded)
    assert lines[0] == f"arrays of {tiny_workdir}: {count} loaded, 2 skipped, 2 new"
    assert "loaded   batch_stats/input_norm/mean" in lines
    assert "new      params/fc2/kernel" in lines
    assert len(lines) == count + 5


@pytest.mark.fast
def test_a_state_begins_with_the_given_arrays():
    """They become weights, statistics and both averages; Adam starts at zero and the rest is random."""
    tx = optimizer.adam(schedule="constant", learning_rate=1e-3, total_steps=1)
    given = {
        ("params", "dense1", "kernel"): np.full((8, 8), 7, np.float32),
        ("batch_stats", "norm0", "mean"): np.full(8, -40, np.float32),
    }
    create = jax.jit(lambda arrays: create_state(Small(), tx, jnp.asarray(IMAGES), 0, arrays))
    state, random = create(given), create(None)
    for params, statistics in (
        (state.params, state.batch_stats),
        (state.ema_params, state.ema_batch_stats),
    ):
        np.testing.assert_array_equal(params["dense1"]["kernel"], 7)
        np.testing.assert_array_equal(statistics["norm0"]["mean"], -40)
    np.testing.assert_array_equal(state.params["dense2"]["kernel"], random.params["dense2"]["kernel"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state.inner_state))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"sample_rate": 8000}, r"trained with sample_rate=16000, but config\.sample_rate=8000"),
        ({"feature.name": "mfcc"}, r"trained on log_mel, but config\.feature\.name=mfcc"),
        (
            {"model.name": "rann-0.5x2-1"},
            r"another network: params/stage2_block0/conv1/kernel is \(3, 6, 16, 32\) there, "
            r"\(3, 3, 16, 32\) in rann-0.5x2-1, and \d+ more differ",
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_differs_from_the_source_is_named(tiny_workdir, overrides, says):
    with pytest.raises(ConfigError, match=rf"^config\.init_from: {tiny_workdir}: .*{says}") as raised:
        pretrained.load(experiment_from(tiny_workdir, **overrides))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist: name a workdir or a PyTorch file"), ("folder", "holds no checkpoints/")],
)
def test_invalid_sources_are_refused_early(tmp_path, content, says):
    source = tmp_path / "source"
    if content == "folder":
        source.mkdir()
    config = tiny.get_config()
    config.dataset = {"name": "fsdd"}  # lacks data_dir, which would be refused next
    config.init_from = str(source)
    with pytest.raises(ConfigError, match=rf"config\.init_from: .*{says}"):
        run(config, tmp_path / "run", mode="train", checkpoint="latest", quiet=True)
    assert not (tmp_path / "run").exists()


def test_patterns_without_a_match_are_refused_early(tmp_path):
    config = tiny.get_config()
    config.optimizer.frozen = ("conv*",)
    with pytest.raises(ConfigError, match=r"config\.optimizer: frozen='conv\*' matches no .*stage0_block0"):
        run(config, tmp_path / "run", mode="train", checkpoint="latest", quiet=True)


def test_random_weights_are_not_frozen(tmp_path):
    config = tiny.get_config()
    config.optimizer.frozen = ("trunk",)
    says = r"^config\.optimizer\.frozen: random .* --config\.init_from="
    with pytest.raises(ConfigError, match=says) as told:
        run(config, tmp_path / "run", mode="train", checkpoint="latest", quiet=True)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def panns(tmp_path_factory):
    """A safetensors file with the weights of a narrow CNN14 of three classes and PANNs' front end."""
    pytest.importorskip("safetensors")
    experiment = build(tiny_panns.get_config("classes=3"))
    state, rng = jax.eval_shape(experiment.initial_state), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        {"params": state.params, "batch_stats": state.batch_stats},
    )
    from safetensors.numpy import save_file

    entries = interop.to_state_dict(variables, "cnn14")
    entries["logmel_extractor.melW"] = np.ascontiguousarray(experiment.front_end.mel_filters().T)
    entries["spectrogram_extractor.stft.conv_real.weight"] = np.zeros((513, 1, 1024), np.float32)
    path = tmp_path_factory.mktemp("panns") / "cnn14.safetensors"
    save_file(entries, path)
    return path, variables


def test_a_file_gives_all_arrays_and_no_labels(panns):
    path, variables = panns
    experiment = experiment_from(path, tiny_panns.get_config("classes=3"))
    beginning = pretrained.begin(pretrained.load(experiment), experiment, ["a", "b", "c"])
    assert beginning.new == ()
    assert set(beginning.skipped) == {
        "logmel_extractor.melW",
        "spectrogram_extractor.stft.conv_real.weight",
    }
    for name, array in flatten_dict(variables).items():
        np.testing.assert_array_equal(beginning.loaded[name], array)
    other = experiment_from(path, tiny_panns.get_config("classes=5"))
    beginning = pretrained.begin(pretrained.load(other), other, list("abcde"))
    assert set(beginning.new) == {"params/fc_audioset/kernel", "params/fc_audioset/bias"}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"sample_rate": 16000}, r"windows of 1024 samples, .* gives 512: set --config\.sample_rate=32000"),
        (
            {"feature.frames_per_second": 128},
            r"frames 320 samples apart, .*=128 gives 250: set --config\.feature\.frames_per_second=100",
        ),
        ({"feature.fmin": 20.0}, r"other mel filters \(logmel_extractor\.melW, \(513, 64\)\) .*fmin=20"),
        ({"feature.name": "log_mel"}, "PANNs' log-mel, but config.feature.name=log_mel: use panns_log_mel"),
        ({"model.name": "resnet38"}, "not the weights of resnet38: it has no entry"),
        ({"model.width": 32}, r"not the weights of cnn14: it has the wrong shape for"),
    ],
    ids=["rate", "hop", "filters", "feature", "network", "width"],
)
def test_what_differs_from_a_file_is_named(panns, overrides, says):
    config = tiny_panns.get_config("classes=3")
    with pytest.raises(ConfigError, match=rf"^config\.init_from: {panns[0]}: .*{says}") as raised:
        pretrained.load(experiment_from(panns[0], config, **overrides))
    assert "\n" not in str(raised.value)


def test_windows_and_hops_of_the_published_rates():
    """The published 16 and 8 kHz networks have windows of 512 and 256 samples and hops of 160 and 80."""
    from rann_jax.features import front_end

    for rate, window, hop in ((32000, 1024, 320), (16000, 512, 160), (8000, 256, 80)):
        made = front_end("panns_log_mel", rate, 1.0, 100)
        assert (made.n_fft, made.hop_length, made.highest) == (window, hop, min(14000, rate / 2))
        assert made(jnp.zeros((1, rate), jnp.float32)).shape == (1, 64, 101)
