"""PANNs against PyTorch on a real recording: panns-inference's CNN14, and twins of the other two.

Needs torch, and for CNN14 panns-inference (extra `parity`).
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import soxr

from rann_jax import interop, models
from rann_jax.features import front_end

torch = pytest.importorskip("torch", reason="the PyTorch oracles are the extra `parity`")
from tests.parity import panns_inference, torch_panns  # noqa: E402
from tests.parity.compare import biased_statistics, load_into, randomise, relative  # noqa: E402

RATE, SECONDS, CLASSES, WIDTH = 32000, 1.6, 7, 4
TWINS = {
    "resnet38": torch_panns.TorchResNet38,
    "wavegram_logmel_cnn14": torch_panns.TorchWavegramLogmelCnn14,
}


@pytest.fixture(scope="module")
def waves(data_dir) -> np.ndarray:
    """Two successive pieces each of a rooster and of speech, (4, N) float32 at 32 kHz."""
    pieces = []
    for name in ("esc10_44k1/audio/1-26806-A-1.ogg", "ravdess/audio/03-01-01-01-01-01-01.ogg"):
        y, native = soundfile.read(data_dir / name, dtype="float32", always_2d=True)
        y = soxr.resample(y.mean(axis=1), native, RATE)
        pieces += [y[: int(SECONDS * RATE)], y[int(SECONDS * RATE) :][: int(SECONDS * RATE)]]
    return np.stack(pieces).astype(np.float32)


@pytest.fixture(scope="module")
def panns_models():
    """The module panns_inference.models."""
    pytest.importorskip("torchlibrosa", reason="panns-inference is in the extra `parity`")
    if importlib.util.find_spec("panns_inference") is None:
        pytest.skip("panns-inference is in the extra `parity`")
    with panns_inference.panns_models() as module:
        yield module


def test_cnn14_equals_panns_inference(panns_models, waves, tmp_path):
    network = panns_models.Cnn14(RATE, 1024, 320, 64, 50, 14000, 527).eval()
    randomise(network)
    torch.save({"iteration": 1, "model": network.state_dict()}, tmp_path / "cnn14.pth")
    variables, skipped = interop.load_torch(tmp_path / "cnn14.pth", "cnn14")
    assert len(jax.tree.leaves(variables)) + len(skipped) == len(network.state_dict()) == 84
    with torch.no_grad():
        expected = network(torch.tensor(waves))

    made = front_end("panns_log_mel", RATE, SECONDS, 100)
    model = models.create("cnn14", num_classes=527)

    @jax.jit
    def ours(variables, waves):
        images = made(waves)
        return model.apply(variables, images), model.apply(variables, images, method="embed")

    logits, embedding = ours(variables, jnp.asarray(waves))
    probabilities = expected["clipwise_output"].numpy()
    assert probabilities.std() > 0.05  # else the comparison would be trivial
    np.testing.assert_allclose(jax.nn.sigmoid(logits), probabilities, rtol=0, atol=1e-5)
    assert relative(embedding, expected["embedding"].numpy()) < 1e-5


@pytest.fixture(scope="module", params=sorted(TWINS))
def pair(request, waves):
    """Name, twin, our module and variables, and the same inputs for both."""
    name = request.param
    network = TWINS[name](CLASSES, WIDTH)
    randomise(network)
    model = models.create(name, num_classes=CLASSES, width=WIDTH)
    variables, skipped = interop.load_torch(network.state_dict(), name, width=WIDTH)
    assert all(entry.endswith("num_batches_tracked") for entry in skipped)
    both = front_end("panns_log_mel+wavegram", RATE, SECONDS, 100)(jnp.asarray(waves))
    image = torch.tensor(np.asarray(both["image"])).transpose(1, 2)[:, None]
    if name == "resnet38":
        return name, network, model, variables, both["image"], (image,)
    return name, network, model, variables, both, (image, torch.tensor(waves))


def test_forward(pair):
    _, network, model, variables, x, inputs = pair
    with torch.no_grad():
        expected = network.eval()(*inputs).numpy()
    assert expected.std() > 0.05
    assert relative(jax.jit(model.apply)(variables, x), expected) < 1e-5


def test_training_mode(pair, monkeypatch):
    """Compares outputs with batch statistics and the updated running statistics, without dropout."""
    name, network, model, variables, x, inputs = pair
    for rate in ("BLOCK_DROPOUT", "RESIDUAL_DROPOUT", "HEAD_DROPOUT"):
        monkeypatch.setattr(models.panns, rate, 0.0)
    logits, updated = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, x
    )
    load_into(network, variables, name)
    with torch.no_grad():
        expected = network.train()(*inputs).numpy()
    assert relative(logits, expected) < 1e-4
    mine = interop.to_state_dict(updated, name)
    before = interop.to_state_dict({"batch_stats": variables["batch_stats"]}, name)
    theirs = biased_statistics(network, before, *inputs)
    assert set(mine) == set(theirs)
    for entry, value in mine.items():
        assert relative(value, theirs[entry]) < 1e-5, entry
