"""Convert a file that panns-inference's own CNN14 wrote, and compare the result with that network.

The channels are divided by 16, for which the original has no option; everything else is its own code.
"""

import importlib.util

import numpy as np
import pytest

from input_pipeline.datasets.quickstart import synthesise
from rann_jax import Tagger, convert
from rann_jax.saved.workdir import load_config
from tests.conftest import REPOSITORY
from tests.refusals import assert_one_error
from tests.tiny_panns import WIDTH

torch = pytest.importorskip("torch", reason="the PyTorch oracles are the extra `parity`")
pytest.importorskip("torchlibrosa", reason="panns-inference is in the extra `parity`")
if importlib.util.find_spec("panns_inference") is None:
    pytest.skip("panns-inference is in the extra `parity`", allow_module_level=True)
from tests.parity.compare import randomise  # noqa: E402
from tests.parity.panns_inference import panns_models  # noqa: E402

CLASSES = 527


@pytest.fixture(scope="module")
def network():
    """panns-inference's CNN14, narrow, with random weights."""
    with panns_models() as module:
        build = module.ConvBlock.__init__  # only this test uses the loaded module

        def narrow(block, in_channels, out_channels):
            build(block, max(1, in_channels // WIDTH), out_channels // WIDTH)

        module.ConvBlock.__init__ = narrow
        made = module.Cnn14(32000, 1024, 320, 64, 50, 14000, CLASSES)
    made.fc1 = torch.nn.Linear(2048 // WIDTH, 2048 // WIDTH)
    made.fc_audioset = torch.nn.Linear(2048 // WIDTH, CLASSES)
    randomise(made)
    return made.eval()


@pytest.fixture(scope="module")
def published(network, tmp_path_factory):
    """A folder with the file as PANNs publishes it and the class list."""
    folder = tmp_path_factory.mktemp("published")
    torch.save({"iteration": 600000, "model": network.state_dict()}, folder / "Cnn14_mAP=0.431.pth")
    rows = [f'{number},/m/{number},"Sound {number}, loud"' for number in range(CLASSES)]
    (folder / "class_labels_indices.csv").write_text("\n".join(["index,mid,display_name", *rows]) + "\n")
    return folder


def converted(published, workdir, *more: str) -> int:
    config = str(REPOSITORY / "tests/tiny_panns.py:classes=527")
    path = str(published / "Cnn14_mAP=0.431.pth")
    return convert.main([path, "--config", config, "--workdir", str(workdir), *more])


def test_the_workdir_gives_the_results_of_the_original(network, published, tmp_path, capsys):
    assert converted(published, tmp_path / "w", "--config.task=tagging") == 0
    lines = capsys.readouterr().out.splitlines()
    entries = network.state_dict()
    skipped = [name for name in entries if "extractor" in name or name.endswith("num_batches_tracked")]
    assert lines[0].endswith(f": {len(entries) - len(skipped)} loaded, {len(skipped)} skipped, 0 new")
    assert len(entries) == 84
    assert {f"skipped  {name}" for name in skipped} <= set(lines)
    tagger = Tagger.load(tmp_path / "w", batch_size=2)
    assert tagger.labels == tuple(f"Sound {number}, loud" for number in range(CLASSES))
    assert (tagger.sample_rate, tagger.task) == (32000, "tagging")
    assert load_config(tmp_path / "w").init_from == ""
    rng = np.random.default_rng(0)
    waves = np.stack([synthesise(label, rng)[:16000].repeat(2) for label in ("siren", "rain")])
    with torch.no_grad():
        expected = network(torch.tensor(waves))
    probabilities = expected["clipwise_output"].numpy()
    assert probabilities.std() > 0.05
    np.testing.assert_allclose(tagger.predict(waves), probabilities, rtol=0, atol=1e-5)
    embeddings = expected["embedding"].numpy()
    np.testing.assert_allclose(tagger.embed_windows(waves), embeddings, atol=1e-5 * embeddings.max())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--config.sample_rate=16000"], "set --config.sample_rate=32000"),
        (["--config.model.name=resnet38"], "not the weights of resnet38: it has no entry"),
        (["--config.num_classes=50"], "has 527 classes, but config.num_classes=50"),
        (["--labels", "absent.csv"], "--labels: absent.csv does not exist"),
        (["--speed"], "'--speed' is not understood"),
    ],
    ids=["rate", "network", "classes", "labels", "flag"],
)
def test_conversion_errors_are_one_line(published, tmp_path, capsys, more, says):
    assert converted(published, tmp_path / "w", *more) == 2
    assert_one_error(capsys.readouterr().err, says)
    assert not (tmp_path / "w").exists()
