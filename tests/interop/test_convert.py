"""PyTorch files are read and written exactly; anything else is refused in one line."""

import builtins
import pickle
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import interop, models
from rann_jax.errors import ConfigError
from rann_jax.interop import convert, files

WIDTH, CLASSES = 32, 3
INPUTS = {
    "cnn14": (64, 32),
    "resnet38": (64, 32),
    "wavegram_logmel_cnn14": {"image": (64, 32), "waveform": (32 * 320,)},
    "rann-1x8-1": (16, 64),
    "rann-1x1-1": {"waveform": (64 * 345,)},
    "rann-1x2-1": {"image": (16, 64), "waveform": (64 * 345,)},
}


def options(network: str) -> dict:
    # `width` divides the channels, and the wavegram has only four.
    return {} if network.startswith("rann-") else {"width": 4 if network.startswith("wave") else WIDTH}


def random_variables(network: str):
    """Return variables with random values everywhere, including the statistics."""
    x = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct((1, *shape), jnp.float32),
        INPUTS[network],
        is_leaf=lambda node: isinstance(node, tuple),
    )
    image = {"wavegram_shape": (16, 64)} if network == "rann-1x1-1" else {}
    model = models.create(network, num_classes=CLASSES, **options(network), **image)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def cnn14():
    """Variables of a narrow CNN14, and their state_dict."""
    variables = random_variables("cnn14")
    return variables, interop.to_state_dict(variables, "cnn14")


def load(entries, network: str = "cnn14"):
    return interop.load_torch(entries, network, **options(network))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_wavegram_of_another_rate():
    """The first kernel tells the stride: at 16 kHz and 100 frames a second, half that of PANNs."""
    network, x = "wavegram_logmel_cnn14", {"image": (64, 32), "waveform": (32 * 128,)}
    model = models.create(network, num_classes=CLASSES, width=4)
    shapes = jax.tree.map(
        lambda n: jax.ShapeDtypeStruct((1, *n), jnp.float32), x, is_leaf=lambda n: isinstance(n, tuple)
    )
    variables = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape, leaf.dtype), jax.eval_shape(model.init, jax.random.key(0), shapes)
    )
    entries = interop.to_state_dict(variables, network)
    assert entries["pre_conv0.weight"].shape[1:] == (1, 5)
    assert_equal(load(entries, network).variables, variables)


@pytest.mark.fast
@pytest.mark.parametrize("network", sorted(INPUTS))
def test_round_trip_is_exact(network):
    variables = random_variables(network)
    entries = interop.to_state_dict(variables, network)
    assert len(entries) == len(jax.tree.leaves(variables))
    loaded, skipped = load(entries, network)
    assert skipped == ()
    assert_equal(loaded, variables)


@pytest.mark.fast
def test_weights_are_copied(cnn14, monkeypatch):
    """JAX shares the memory of NumPy arrays that start at a multiple of 64 bytes, unless told to copy it; and
    `jnp.array` copies them only when the device is free."""
    bias = cnn14[1]["fc1.bias"]
    room = np.zeros(bias.size + 16, np.float32)
    start = -room.ctypes.data // room.itemsize % 16
    given = room[start : start + bias.size]
    given[:] = bias
    load(cnn14[1])  # compiles whatever copies
    busy = []

    def layout(array, function=convert.to_linen_layout):
        if array is given:
            busy.extend(work(x) for _ in range(10))
        return function(array)

    work = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, y: y @ x / 500, x))
    x = work(jnp.ones((500, 500))).block_until_ready()
    monkeypatch.setattr(convert, "to_linen_layout", layout)
    loaded, _ = load(cnn14[1] | {"fc1.bias": given})
    given[:] = np.nan
    assert_equal(loaded, cnn14[0])
    assert busy


@pytest.mark.fast
def test_written_weights_are_copies(cnn14):
    """Else a network of PyTorch that trains on them, by torch.from_numpy, would change those of JAX."""
    variables = jax.tree.map(np.array, cnn14[0])
    entries = interop.to_state_dict(variables, "cnn14")
    for entry in entries.values():
        entry += 1
    assert_equal(variables, cnn14[0])


def test_tensors_that_are_not_plain_arrays_are_one_line():
    torch = pytest.importorskip("torch", reason="the PyTorch oracles are the extra `parity`")
    endless = torch.zeros(1).expand(10**14)
    for entry, says in (
        (endless, "more numbers than the file holds"),
        (torch.eye(3).to_sparse(), "not a plain array"),
        (torch.zeros(3, device="meta"), "entry 'fc1.weight'"),
    ):
        with pytest.raises(ConfigError, match=says):
            interop.load_torch({"fc1.weight": entry}, "cnn14")


@pytest.mark.parametrize(("suffix", "package"), [(".pth", "torch"), (".safetensors", "safetensors")])
def test_files(cnn14, tmp_path, suffix, package):
    pytest.importorskip(package)
    variables, _ = cnn14
    path = tmp_path / f"weights{suffix}"
    interop.save_torch(path, variables, "cnn14")
    assert_equal(load(path).variables, variables)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.fast
def test_published_names(cnn14):
    """Names of the published checkpoints, with PyTorch's shapes."""
    assert cnn14[1]["conv_block2.conv1.weight"].shape == (128 // WIDTH, 64 // WIDTH, 3, 3)
    shapes = {
        network: {name: array.shape for name, array in entries.items()}
        for network in ("resnet38", "wavegram_logmel_cnn14")
        for entries in [interop.to_state_dict(random_variables(network), network)]
    }
    assert shapes["resnet38"]["resnet.layer1.0.conv1.weight"] == (2, 2, 3, 3)
    assert shapes["resnet38"]["resnet.layer2.0.downsample.1.weight"] == (4, 2, 1, 1)
    assert shapes["resnet38"]["resnet.layer2.0.downsample.2.running_var"] == (4,)
    wavegram = shapes["wavegram_logmel_cnn14"]
    assert wavegram["pre_conv0.weight"] == (16, 1, 11)
    assert wavegram["pre_block2.conv1.weight"] == (32, 16, 3)
    assert wavegram["pre_bn0.running_mean"] == (16,)
    assert wavegram["pre_block4.conv1.weight"] == (16, 1, 3, 3)


@pytest.mark.fast
def test_skipped_entries_are_named(cnn14):
    front_end = {
        "spectrogram_extractor.stft.conv_real.weight": np.zeros((513, 1, 1024), np.float32),
        "logmel_extractor.melW": np.zeros((513, 64), np.float32),
        "bn0.num_batches_tracked": np.array(7),
    }
    loaded, skipped = load({"iteration": 1, "model": front_end | cnn14[1]})
    assert skipped == tuple(front_end)
    assert_equal(loaded, cnn14[0])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc1.bias": None}, r"the state_dict: not the weights of cnn14: it has no entry 'fc1\.bias'$"),
        ({"extra": np.zeros(3)}, r"it has the unknown entry 'extra'$"),
        (
            {"bn0.bias": np.zeros(63), "fc1.bias": np.zeros(())},
            r"it has the wrong shape for 'bn0\.bias', \(63,\) instead of \(64,\) and 1 more$",
        ),
        ({"conv_block1.conv1.weight": np.zeros((3, 3, 1, 2))}, r"\(3, 3, 1, 2\) instead of \(2, 1, 3, 3\)"),
        ({"fc_audioset.weight": None, "fc_audioset.bias": None}, "no entry 'fc_audioset"),
        ({"fc1.bias": "text"}, "entry 'fc1.bias' is a str, not an array of numbers"),
        ({"fc1.bias": np.array([object()])}, "entry 'fc1.bias' is a ndarray, not an array"),
    ],
    ids=["missing", "unknown", "shape", "linen_layout", "no_head", "text", "objects"],
)
def test_the_entry_that_differs_is_named(cnn14, change, message):
    entries = {k: v for k, v in (cnn14[1] | change).items() if v is not None}
    with pytest.raises(ConfigError, match=message) as raised:
        load(entries)
    assert "\n" not in str(raised.value)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("network", "absent"),
    [
        ("resnet38", "conv_block_after1.bn1.running_mean"),
        ("wavegram_logmel_cnn14", "pre_block4.bn1.running_mean"),
        ("rann-1x1-1", "input_norm.running_mean"),
    ],
)
def test_weights_of_another_network_are_refused(cnn14, network, absent):
    with pytest.raises(ConfigError, match=f"not the weights of {network}: it has no entry '{absent}' and"):
        load(cnn14[1], network)


@pytest.mark.fast
def test_an_unknown_network_is_refused(cnn14):
    with pytest.raises(ValueError, match="unknown network 'vgg'"):
        interop.load_torch(cnn14[1], "vgg")


def test_invalid_files_are_refused(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    with pytest.raises(ConfigError, match=r"absent\.pth: no such file"):
        interop.load_torch(tmp_path / "absent.pth", "cnn14")
    (tmp_path / "text.pth").write_text("<html>")
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"model": builtins.print}))
    (tmp_path / "text.safetensors").write_text("<html>")
    for name in ("text.pth", "code.pth", "text.safetensors"):
        with pytest.raises(
            ConfigError, match=rf"{name}: cannot be read as arrays and plain values \(\w+\)"
        ) as raised:
            interop.load_torch(tmp_path / name, "cnn14")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("checksums", [True, False])
def test_a_damaged_weight_in_a_pytorch_file_is_one_line(cnn14, tmp_path, checksums):
    """PyTorch writes checksums, unless it is told not to, and never reads them."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    weights = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    torch.serialization.set_crc32_options(checksums)
    try:
        torch.save({"fc1.weight": torch.tensor(weights)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(files.read_entries(path)["fc1.weight"], weights)
    content = bytearray(path.read_bytes())
    content[content.index(weights.tobytes()) + 99] ^= 1
    path.write_bytes(content)
    if checksums:
        with pytest.raises(
            ConfigError, match=r"weights\.pth: cannot be read .*\(BadZipFile\): it is damaged"
        ):
            files.read_entries(path)
    else:
        assert (files.read_entries(path)["fc1.weight"] != weights).sum() == 1


def test_a_small_pytorch_file_cannot_fill_the_memory(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({"fc1.weight": Declared()}, path)
    with pytest.raises(ConfigError, match=r"weights\.pth: entry .* more numbers than the file holds"):
        files.read_entries(path)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        with archive.open("archive/data/9", "w") as file:
            for _ in range(1 << 10):
                file.write(bytes((1 << 20) + 1))
    with pytest.raises(ConfigError, match=r"weights\.pth: its members inflate to more .*: save it again"):
        files.read_entries(path)


class Declared:
    """An array in a PyTorch file of which only the shape and type are stored."""

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (1 << 24,), "f4")


@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_numpy_arrays_beside_the_weights(cnn14, tmp_path, module):
    """PANNs' files also hold the sampler's index arrays, some pickled under the old name numpy.core."""
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(array) for name, array in cnn14[1].items()}
    sampler = {"indexes": [np.arange(3), np.zeros(2)], "pointer": np.int64(1)}
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": tensors, "sampler": sampler}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"c" + module + b"."))
    assert_equal(load(path).variables, cnn14[0])


def test_half_precision(cnn14, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(array).bfloat16() for name, array in cnn14[1].items()}
    loaded, _ = load(tensors)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), cnn14[0])
    assert_equal(loaded, rounded)
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(tensors, tmp_path / "half.safetensors")
    assert_equal(load(tmp_path / "half.safetensors").variables, rounded)


@pytest.mark.fast
@pytest.mark.parametrize(("suffix", "module"), [(".pth", "torch"), (".safetensors", "safetensors.numpy")])
def test_a_missing_package_is_named(cnn14, tmp_path, monkeypatch, suffix, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"pip install {module.partition('.')[0]}$"):
        interop.save_torch(tmp_path / f"weights{suffix}", cnn14[0], "cnn14")


def test_an_unwritable_path_is_refused(cnn14, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"weights\.pth: cannot be written: "):
        interop.save_torch(tmp_path / "file" / "weights.pth", cnn14[0], "cnn14")
