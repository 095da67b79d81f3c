"""The front ends of PANNs (Kong et al., 2020): the log-mel spectrogram that their weights were trained on."""

import dataclasses
from typing import ClassVar

import jax
import numpy as np

from rann_jax.features.band import FMIN, upper_edge
from rann_jax.features.decibels import power_to_db
from rann_jax.features.front_ends.base import FrontEnd, ImageFrontEnd
from rann_jax.features.front_ends.waveform import AndWaveform
from rann_jax.features.mel import mel_filter_bank, melspectrogram

WINDOW_SECONDS = 1024 / 32000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PannsBands(FrontEnd):
    """Base class of both front ends with PANNs' log-mel spectrogram in dB.

    It has 64 bands of 50-14000 Hz and, at 32 kHz, a Hann window of 1024 and a hop of 320 samples.

    As published, frames are centred and the ends reflected. There are `n_samples // hop_length + 1` frames:
    1001 for 10 s, one more than `frames_per_second * seconds`. If the hop has to be rounded, the number
    differs (998 for 10 s at 22050 Hz). At other rates the window keeps its duration, in an even number of
    samples, and the upper edge is at most Nyquist.

    Attributes:
      fmin: lowest frequency in Hz.
      fmax: highest frequency in Hz; None for the lower of 14000 Hz and Nyquist.
    """

    sample_rate: int = 32000
    seconds: float = 10.0
    frames_per_second: float = 100
    n_bins: int = 64
    fmin: float = FMIN
    fmax: float | None = None

    @property
    def n_frames(self) -> int:
        """Columns of the image."""
        return self.n_samples // self.hop_length + 1

    @property
    def n_fft(self) -> int:
        """Length of window and FFT in samples; even, so that the last frame is centred on the end."""
        return 2 * round(self.sample_rate * WINDOW_SECONDS / 2)

    @property
    def padded_samples(self) -> int:
        """Samples of the clip alone: its ends are reflected, not extended by zeros."""
        return self.n_samples

    @property
    def highest(self) -> float:
        """The upper edge of the bands in Hz."""
        return upper_edge(self.sample_rate) if self.fmax is None else self.fmax

    def mel_filters(self) -> np.ndarray:
        """Return the mel filters, `(n_bins, 1 + n_fft / 2)`, which published weights also contain."""
        bank = mel_filter_bank(
            self.sample_rate, self.n_fft, self.n_bins, self.fmin, self.highest, htk=False, norm="slaney"
        )
        return bank.copy()  # the bank itself is kept for all that ask for the same

    def features(self, y: jax.Array) -> jax.Array:
        """Return dB `(..., n_bins, T)`, at least -100."""
        power = melspectrogram(
            y,
            sr=self.sample_rate,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            n_mels=self.n_bins,
            fmin=self.fmin,
            fmax=self.highest,
            pad_mode="reflect",
        )
        return power_to_db(power, top_db=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PannsLogMel(PannsBands, ImageFrontEnd):
    """The log-mel: the input of CNN14 and ResNet38."""

    name: ClassVar[str] = "panns_log_mel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PannsLogMelWavegram(PannsBands, AndWaveform):
    """The log-mel plus the waveform: the input of Wavegram-Logmel-CNN."""

    name: ClassVar[str] = "panns_log_mel+wavegram"
