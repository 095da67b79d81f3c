"""The PyTorch side of the paired benchmarks does the same work: same images, probabilities and sizes."""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks import inference, ours, train_step
from benchmarks.workload import FEATURES, INFERENCE, TRAINING, WAVEFORM, Workload
from rann_jax import distributed
from rann_jax.augment.specaugment import SpecAugment
from rann_jax.features import front_end

torch = pytest.importorskip("torch", reason="the PyTorch twins are the extra `parity`")
pytest.importorskip("torchlibrosa", reason="the PyTorch twins are the extra `parity`")
pytest.importorskip("panns_inference", reason="the PyTorch twins are the extra `parity`")
from benchmarks import twin  # noqa: E402
from tests.parity.compare import load_into  # noqa: E402

TINY = Workload(INFERENCE, "rann-0.5x4-1", WAVEFORM, 2, steps=1, repeats=1)


@pytest.mark.parametrize(
    ("name", "sample_rate", "frames_per_second"), [("log_mel", 44100, 128), ("panns_log_mel", 32000, 100)]
)
def test_images_equal_ours(name, sample_rate, frames_per_second):
    n_bins = 128 if name == "log_mel" else 64
    made = front_end(
        name, sample_rate=sample_rate, seconds=1.0, frames_per_second=frames_per_second, n_bins=n_bins
    )
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (2, sample_rate)).astype(np.float32)
    images = twin.front_end_of(made)(torch.tensor(wave)).numpy()
    if name == "panns_log_mel":
        images = images.swapaxes(1, 2)
    np.testing.assert_allclose(images, made(wave), atol=2e-3)  # dB


@pytest.fixture
def quickly_compiled():
    """Compile without optimisations, which would take longer than they save."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("quickly_compiled")
def test_probabilities_equal_ours_and_are_timed():
    experiment = TINY.experiment()
    variables = experiment.create().ema_variables
    # Nothing has normalised the dB values yet, so the logits would be in the hundreds.
    variables["params"]["fc2"]["kernel"] *= 0.01
    theirs = twin.Twin(TINY, "cpu")
    load_into(theirs.network, variables, TINY.network)
    mesh = distributed.data_mesh(devices=jax.devices()[:2])
    call = ours.compiled(TINY, experiment, mesh)
    mine = np.asarray(call(variables, TINY.host_batch(experiment, 0)["audio"]))
    assert mine.std() > 0.1
    np.testing.assert_allclose(theirs.run()().numpy(), mine, atol=1e-5)
    taken = ours.timed(TINY, experiment, mesh, call)
    assert {name: len(blocks) for name, blocks in taken.items()} == {"seconds": 1, "fed_seconds": 1}
    assert min(taken["seconds"] + taken["fed_seconds"]) > 0


@pytest.mark.parametrize("network", ["rann-0.5x4-2", "cnn14"])
def test_every_activation_is_in_channels_last(network):
    made = twin.Twin(dataclasses.replace(TINY, network=network, seconds=0.5), "cpu")
    seen, elsewhere = [], []

    def look(name):
        def hook(_, inputs, out):
            for tensor in (*inputs, out):
                if torch.is_tensor(tensor) and tensor.ndim == 4 and tensor.shape[1] > 1:
                    in_order = tensor.is_contiguous(memory_format=torch.channels_last)
                    (seen if in_order else elsewhere).append(name)

        return hook

    for name, module in made.network.named_modules():
        if name != "input_norm":  # a RANN's bins are its channels there; the image has one
            module.register_forward_hook(look(name))
    made.run()()
    assert elsewhere == []
    assert len(seen) > 20


def test_a_training_step_averages_the_weights():
    workload = dataclasses.replace(TINY, kind=TRAINING)
    made = twin.Twin(workload, "cpu")
    before = [tensor.clone() for tensor in made.followed]
    loss = made.run()()
    assert 0.3 < float(loss) < 2  # near log 2: every one of 527 classes is undecided
    for old, new, average in zip(before, made.followed, made.averages, strict=True):
        assert not torch.equal(old, new)
        torch.testing.assert_close(average, 0.999 * old + 0.001 * new)


@pytest.mark.parametrize(("kind", "result"), [(TRAINING, ()), (INFERENCE, (2, 527))])
def test_all_of_the_forward_pass_is_compiled(monkeypatch, kind, result):
    shapes = []

    def compile_(function, *, mode):
        def compiled(*arguments):
            out = function(*arguments)
            shapes.append((mode, *(tuple(tensor.shape) for tensor in (*arguments, out))))
            return out

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    made = twin.Twin(dataclasses.replace(TINY, kind=kind, torch_compile="max-autotune"), "meta")
    made.run()()
    # From waveforms (2 clips of half a second at 44.1 kHz) and labels to the loss or to probabilities.
    assert shapes == [("max-autotune", (2, 22050), (2, 527), result)]


def test_mixing_keeps_labels_with_their_sound():
    x = torch.eye(6)
    mix, labels = twin.mixed(x, x.clone())
    torch.testing.assert_close(mix, labels)
    torch.testing.assert_close(mix.sum(1), torch.ones(6))


@pytest.mark.parametrize("time_axis", [1, 2])
def test_stripes_are_filled_with_the_mean(time_axis):
    policy = SpecAugment(time_stripes=1, time_share=0.25, frequency_stripes=1, frequency_share=0.5)
    images = torch.arange(64 * 8 * 40.0).reshape(64, 40, 8)
    if time_axis == 2:
        images = images.transpose(1, 2)
    hidden = twin.spec_augmented(images, policy, time_axis) == images.mean((1, 2), keepdim=True)
    # Stripes of up to 10 frames and 4 bins; among all examples both extremes occur.
    whole_frames, whole_bins = hidden.all(3 - time_axis).sum(1), hidden.all(time_axis).sum(1)
    assert (int(whole_frames.min()), int(whole_frames.max())) == (0, 10)
    assert (int(whole_bins.min()), int(whole_bins.max())) == (0, 4)


def test_failures_of_a_twin_are_named(monkeypatch):
    def refuse(error):
        monkeypatch.setattr(twin.Twin, "run", lambda _: (_ for _ in ()).throw(error))
        return twin.measure(TINY, "cpu")

    full = {"failed": "out of memory"}
    assert refuse(torch.OutOfMemoryError("CUDA out of memory")) == full
    said = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
    assert refuse(RuntimeError(said)) == full
    said = "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx"
    assert refuse(RuntimeError(said)) == {"failed": "no C++ compiler"}
    with pytest.raises(RuntimeError, match="no kernel"):
        refuse(RuntimeError("no kernel"))


@pytest.mark.parametrize(
    ("program", "network", "source", "parameters", "tflop"),
    [
        # The deck's parameter count; 256 clips with 47.137e9 multiply-adds forward and twice that backward.
        (train_step, "rann-8x4-6", WAVEFORM, "54,919,313", "72.402"),
        # 20.042e9 multiply-adds for 10 s, without the STFT.
        (inference, "cnn14", FEATURES, "80,753,615", "10.261"),
    ],
)
def test_dry_run_of_a_gpu_workload(program, network, source, parameters, tflop, capsys):
    arguments = ["--dry-run", "--networks", network, "--sources", source, "--batch", "256"]
    program.main([*arguments, "--dtype", "bfloat16", "--seconds", "10"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert [cell.strip() for cell in last.strip("|").split("|")][:5] == [
        network,
        source,
        "256",
        parameters,
        tflop,
    ]
