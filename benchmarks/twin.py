"""The PyTorch side of a paired benchmark: the same workload, as fast as PyTorch alone computes it.

Networks use channels_last (`network_of` has the exception), autocast if the workload is bfloat16,
cudnn.benchmark, fused Adam and, on request, torch.compile of all of the forward pass in one program:
augmentation, front end, network, loss, and with them the backward pass. Adam's kernel and the moving
averages follow it, as each is one pass already. Front ends are in float32, as ours are. RANN is
the parity tests' twin behind torch.stft and a mel matrix; CNN14 is panns-inference's original behind
torchlibrosa's layers. Mixup and SpecAugment do what ours do, for the whole batch on the device;
torchlibrosa's own SpecAugmentation would loop over clips. Adam's learning rate is constant here; in ours it
follows the schedule, which costs two numbers per step.

As a program, it measures one workload, given as JSON, in a process of its own, and prints JSON.
"""

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

from benchmarks import machine
from benchmarks.workload import TRAINING, WAVEFORM, Workload
from rann_jax.augment.specaugment import SpecAugment
from rann_jax.experiment import Experiment
from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.features.front_ends.panns import PannsLogMel
from rann_jax.features.front_ends.spectral import LogMel
from rann_jax.features.mel import mel_filter_bank
from rann_jax.models.rann import parse_name
from tests.parity.panns_inference import panns_models
from tests.parity.torch_rann import TorchRANN

FLOOR = 1e-10  # of power, -100 dB

# What PyTorch's errors contain, and what is shown for them; the first is from the CPU allocator.
FAILURES = {"can't allocate memory": "out of memory", "InvalidCxxCompiler": "no C++ compiler"}


class TorchLogMel(nn.Module):
    """The front end `log_mel`, from waveforms (B, N) to dB (B, F, T)."""

    def __init__(self, front_end: LogMel):
        super().__init__()
        spectrum = front_end.spectrum()
        self.n_fft, self.hop_length = spectrum["n_fft"], spectrum["hop_length"]
        self.padding = front_end.padded_samples - front_end.n_samples
        self.frames = front_end.n_frames
        bank = mel_filter_bank(
            spectrum["sr"], self.n_fft, front_end.n_bins, spectrum["fmin"], spectrum["fmax"], False, "slaney"
        )
        self.register_buffer("window", torch.hann_window(spectrum["win_length"]))
        self.register_buffer("bank", torch.tensor(bank))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Return the images of crops, with as many frames as ours."""
        wave = functional.pad(wave, (0, self.padding))
        bins = torch.stft(
            wave,
            self.n_fft,
            self.hop_length,
            len(self.window),
            self.window,
            pad_mode="constant",
            return_complex=True,
        )
        power = self.bank @ (bins.real.square() + bins.imag.square())
        return (10 * power.clamp_min(FLOOR).log10())[..., : self.frames]


def panns_log_mel(front_end: PannsLogMel) -> nn.Module:
    """Build `panns_log_mel` from PANNs' own layers, from waveforms (B, N) to dB (B, T, F)."""
    spectrogram = Spectrogram(n_fft=front_end.n_fft, hop_length=front_end.hop_length, freeze_parameters=True)
    bank = LogmelFilterBank(
        sr=front_end.sample_rate,
        n_fft=front_end.n_fft,
        n_mels=front_end.n_bins,
        fmin=front_end.fmin,
        fmax=front_end.highest,
        amin=FLOOR,
        top_db=None,
        freeze_parameters=True,
    )
    return nn.Sequential(spectrogram, bank, nn.Flatten(0, 1))


def front_end_of(front_end: FrontEnd) -> nn.Module:
    """Return the same front end in PyTorch; that of CNN14 puts frames before bins."""
    return TorchLogMel(front_end) if isinstance(front_end, LogMel) else panns_log_mel(front_end)


class Cnn14(nn.Module):
    """panns-inference's CNN14 after its front end, from images (B, T, F) to probabilities (B, C)."""

    def __init__(self, num_classes: int):
        super().__init__()
        with panns_models() as module:
            self.original = module.Cnn14(32000, 1024, 320, 64, 50, 14000, num_classes)
        for layer in ("spectrogram_extractor", "logmel_extractor", "spec_augmenter"):
            setattr(self.original, layer, nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities, as the original does."""
        return self.original(images[:, None])["clipwise_output"]


def network_of(experiment: Experiment, device: torch.device) -> nn.Module:
    """Return the network's twin on a device, in channels_last, with weights of its own.

    The exception is a RANN of width 1 on a CPU, which keeps PyTorch's default layout: in channels_last,
    PyTorch 2.13 crashes in the gradient of its strided 1x1 convolution from 8 channels.

    A RANN's image gets the strides of channels_last. With one channel, its values are in that order anyway,
    but PyTorch takes it for the default layout, which the 1x1 convolution beside the first block's two
    others would then give its result.
    """
    torch.manual_seed(0)
    config = experiment.config
    if config.model.name == "cnn14":
        network: nn.Module = Cnn14(config.num_classes)
    else:
        _, t_m, width = parse_name(config.model.name)
        network = TorchRANN(config.num_classes, t_m, width, n_bins=experiment.image_shape[0])
        if width == 1 and device.type == "cpu":
            return network
        network.stage0_block0.register_forward_pre_hook(
            lambda _, inputs: inputs[0].to(memory_format=torch.channels_last)
        )
    return network.to(device, memory_format=torch.channels_last)


def mixed(x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each example with the next, as ours does, with alpha 1: that Beta distribution is uniform."""
    ratio = torch.rand(len(x), device=x.device)

    def mix(values: torch.Tensor) -> torch.Tensor:
        return torch.lerp(values.roll(-1, 0), values, ratio.reshape(-1, *(1,) * (values.ndim - 1)))

    return mix(x), mix(labels)


def stripes(batch: int, size: int, count: int, share: float, device: torch.device) -> torch.Tensor:
    """Return which of `size` positions are hidden, bool (B, size)."""
    width = round(share * size)
    widths = (torch.rand(batch, count, 1, device=device) * (width + 1)).floor()
    starts = (torch.rand(batch, count, 1, device=device) * (size - widths + 1)).floor()
    position = torch.arange(size, device=device)
    return ((position >= starts) & (position < starts + widths)).any(1)


def spec_augmented(images: torch.Tensor, policy: SpecAugment, time_axis: int) -> torch.Tensor:
    """Return images (B, F, T) or (B, T, F) with stripes replaced by each image's mean, as ours."""
    batch, device = len(images), images.device
    frames, bins = images.shape[time_axis], images.shape[3 - time_axis]
    frames = stripes(batch, frames, policy.time_stripes, policy.time_share, device)
    bins = stripes(batch, bins, policy.frequency_stripes, policy.frequency_share, device)
    hidden = frames.unsqueeze(3 - time_axis) | bins.unsqueeze(time_axis)
    return torch.where(hidden, images.mean((1, 2), keepdim=True), images)


class Twin:
    """A workload in PyTorch on one device; "meta" computes only shapes."""

    def __init__(self, workload: Workload, device: str):
        self.workload, self.device = workload, torch.device(device)
        experiment = workload.experiment()
        self.experiment, self.config = experiment, experiment.config
        self.is_cnn14 = workload.network == "cnn14"
        self.front_end = front_end_of(experiment.front_end).to(self.device)
        self.network = network_of(experiment, self.device)
        self.augment: dict[str, Any] = {}
        self.policy = SpecAugment()
        self.forward: Callable = self.probabilities
        self.network.train(workload.kind == TRAINING)
        if workload.kind == TRAINING:
            self.augment = self.config.augment.to_dict()
            self.policy = SpecAugment(**self.augment.get("spec_augment", {}))
            self.forward = self.loss
            self.prepare_training()
        if workload.torch_compile != "none":
            self.forward = torch.compile(self.forward, mode=workload.torch_compile)

    def prepare_training(self) -> None:
        """Set up Adam and, if the config has moving averages, those of weights and statistics."""
        self.adam = torch.optim.Adam(
            self.network.parameters(),
            lr=self.config.optimizer.learning_rate,
            amsgrad=self.config.optimizer.get("amsgrad", False),
            fused=self.device.type != "meta",  # the meta device has no kernels
        )
        statistics = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        self.followed = [parameter.detach() for parameter in self.network.parameters()] + statistics
        self.average: Callable | None = None
        if self.config.ema_decay:
            self.average = get_ema_multi_avg_fn(self.config.ema_decay)
            self.averages = [tensor.clone() for tensor in self.followed]

    def autocast(self) -> torch.autocast:
        """Return the context that the network runs in: bfloat16 if the workload says so."""
        kind = "cuda" if self.device.type == "cuda" else "cpu"
        return torch.autocast(kind, torch.bfloat16, enabled=self.workload.dtype == "bfloat16")

    def images(self, audio: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the network's input and the labels, augmented in training from waveforms."""
        if self.workload.source != WAVEFORM:
            return audio.transpose(1, 2) if self.is_cnn14 else audio, labels
        wave = audio.float() / 32768
        if "mixup" in self.augment:
            wave, labels = mixed(wave, labels)
        images = self.front_end(wave)
        if "feature_mixup" in self.augment:
            images, labels = mixed(images, labels)
        if "spec_augment" in self.augment:
            images = spec_augmented(images, self.policy, time_axis=1 if self.is_cnn14 else 2)
        return images, labels

    def loss(self, audio: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: all of a training step's forward pass."""
        with torch.no_grad():
            images, labels = self.images(audio, labels)
        with self.autocast():
            out = self.network(images)
        if self.is_cnn14:  # the original ends with probabilities
            return functional.binary_cross_entropy(out.float(), labels)
        return functional.binary_cross_entropy_with_logits(out.float(), labels)

    def probabilities(self, audio: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return probabilities (B, C)."""
        images, _ = self.images(audio, labels)
        with self.autocast():
            out = self.network(images)
        return out.float() if self.is_cnn14 else out.float().sigmoid()

    def train(self, audio: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Do one training step and return its loss."""
        loss = self.forward(audio, labels)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        if self.average:
            self.average(self.averages, self.followed, None)
        return loss.detach()

    @torch.inference_mode()
    def infer(self, audio: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return probabilities (B, C) without recording anything for gradients."""
        return self.forward(audio, labels)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first batch of our side, on the device."""
        if self.device.type == "meta":
            shapes = self.workload.batch_shapes(self.experiment)
            dtypes = {np.dtype(np.int16): torch.int16, np.dtype(np.float32): torch.float32}
            audio, labels = (
                torch.empty(shapes[key].shape, dtype=dtypes[np.dtype(shapes[key].dtype)], device="meta")
                for key in ("audio", "labels")
            )
            return audio, labels
        host = self.workload.host_batch(self.experiment, 0)
        return tuple(torch.from_numpy(host[key]).to(self.device) for key in ("audio", "labels"))

    def run(self) -> Callable[[], torch.Tensor]:
        """Return a call that does one step on the batch without waiting for it."""
        batch = self.batch()
        call = self.train if self.workload.kind == TRAINING else self.infer
        return lambda: call(*batch)


def measure(workload: Workload, device: str) -> dict[str, Any]:
    """Return times and, on a GPU, peak memory after the first steps; or the reason of a failure."""
    torch.backends.cudnn.benchmark = True
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    try:
        step = Twin(workload, device).run()

        def block() -> None:
            for _ in range(workload.steps):
                step()
            wait()

        block()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # by now cuDNN has tried its algorithms
        blocks = machine.times({"": block}, workload.repeats)[""]
    except (torch.OutOfMemoryError, MemoryError):
        return {"failed": "out of memory"}
    except RuntimeError as error:
        reasons = [reason for sign, reason in FAILURES.items() if sign in str(error)]
        if not reasons:
            raise
        return {"failed": reasons[0]}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"seconds": [block / workload.steps for block in blocks], "memory_bytes": peak}


def dry_run(workload: Workload) -> dict[str, Any]:
    """Run the step on PyTorch's meta device, which has shapes but no memory."""
    twin = Twin(workload, "meta")
    shape = tuple(twin.run()().shape)
    sizes = [math.prod(parameter.shape) for parameter in twin.network.parameters()]
    return {"parameters": sum(sizes), "result": shape}


if __name__ == "__main__":
    if sys.argv[1] == "cuda" and not torch.cuda.is_available():
        sys.exit("JAX sees a GPU and PyTorch does not: install a torch built for CUDA")
    print(json.dumps(measure(Workload(**json.loads(sys.argv[2])), sys.argv[1])))
