"""A converted workdir can be evaluated and can initialise other runs, but is never trained or overwritten."""

import jax
import numpy as np
import pytest

from input_pipeline.errors import DataError
from rann_jax import interop
from rann_jax.convert import convert, main, read_labels
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.main import run
from rann_jax.training.pretrained import load
from tests import tiny_panns
from tests.tiny_folds import write_sound

pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder with sounds, the weights of a narrow CNN14 and the workdir made from them; the variables."""
    folder = tmp_path_factory.mktemp("converted")
    for seed, name in enumerate(("train/a/1", "train/b/2", "test/a/3", "test/b/4")):
        write_sound(folder / "sounds" / f"{name}.wav", seed)
    config = tiny_panns.get_config("classes=2")
    config.data_dir, config.prepared_dir = str(folder / "sounds"), str(folder / "prepared")
    state, rng = jax.eval_shape(build(config).initial_state), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32),
        {"params": state.params, "batch_stats": state.batch_stats},
    )
    interop.save_torch(folder / "weights.safetensors", variables, "cnn14")
    config.init_from = str(folder / "weights.safetensors")
    convert(config, ["a", "b"], folder / "w")
    return folder, variables


def evaluate(workdir, config=None, mode="eval"):
    return run(config, workdir, mode=mode, checkpoint="latest", quiet=True)


def test_it_is_evaluated_without_a_warning(converted, capsys):
    scores = evaluate(converted[0] / "w")
    assert scores["test/clips"] == 2
    assert "not what this run was started with" not in capsys.readouterr().err
    assert (converted[0] / "w" / "predictions" / "test.npz").exists()


def test_another_run_starts_from_the_same_weights(converted):
    folder, variables = converted
    config = tiny_panns.get_config("classes=2")
    config.init_from = str(folder / "w")
    source = load(build(config))
    assert source.labels == ("a", "b")
    np.testing.assert_array_equal(
        source.arrays["params", "conv_block6", "conv2", "kernel"],
        variables["params"]["conv_block6"]["conv2"]["kernel"],
    )


def test_training_in_it_is_refused(converted):
    with pytest.raises(ConfigError, match=r"converted weights: name that folder with --config\.init_from"):
        evaluate(converted[0] / "w", config_of(converted), mode="train")


def config_of(converted):
    config = tiny_panns.get_config("classes=2")
    config.data_dir, config.prepared_dir = (str(converted[0] / name) for name in ("sounds", "prepared"))
    return config


def test_a_run_is_not_overwritten(converted):
    folder, _ = converted
    before = (folder / "w" / "config.json").read_text()
    config = config_of(converted)
    config.init_from = str(folder / "weights.safetensors")
    with pytest.raises(ConfigError, match="holds a run already"):
        convert(config, ["a", "b"], folder / "w")
    assert (folder / "w" / "config.json").read_text() == before


def test_too_few_names_are_refused(converted, tmp_path, capsys):
    (tmp_path / "names.csv").write_text("index,display_name\n0,a\n")
    arguments = [str(converted[0] / "weights.safetensors"), "--config", tiny_panns.__file__]
    arguments += ["--config.num_classes=2", "--labels", str(tmp_path / "names.csv")]
    assert main([*arguments, "--workdir", str(tmp_path / "w")]) == 2
    assert "--labels: 1 names, but" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.fast
def test_class_names_in_order(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text('index,mid,display_name\n0,/m/a,"Male speech, man speaking"\n1,/m/b,Dog\n')
    assert read_labels(path) == ["Male speech, man speaking", "Dog"]
    path.write_text("index,mid,display_name\n1,/m/b,Dog\n")
    with pytest.raises(ConfigError, match="does not count 0, 1, 2"):
        read_labels(path)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("Dog", "Cat", "Dog"), "'Dog' names two classes"),
        (("Dog", '"Cat\nowl"'), r"'Cat\\nowl' is not a valid class name: write it in one line"),
        (("Dog", "Cat\towl"), r"'Cat\\towl' is not a valid class name: .*without control characters"),
        (("Dog", ""), "'' is not a valid class name"),
    ],
)
def test_ambiguous_class_names_are_refused(names, says, tmp_path):
    """Names identify tags, and other programs read them between tabs and line ends."""
    path = tmp_path / "names.csv"
    path.write_text("index,display_name\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names)))
    with pytest.raises(DataError, match=f"--labels: {path}, column display_name: {says}"):
        read_labels(path)
