"""The front ends that are computed from one spectrum per frame: log-mel, MFCC and GFCC.

Defaults of `log_mel` (paper): 44.1 kHz, Hann window of 1380 samples, hop 345 (128 frames a second),
128 bins, 50-14000 Hz. At other rates the window keeps its duration and the upper edge is at most
Nyquist; FFT length equal to the window, zeros beyond the ends and no dB floor relative to the peak
are ours.
"""

import dataclasses
from typing import Any, ClassVar

import jax

from rann_jax.features import signal
from rann_jax.features.band import FMIN, upper_edge
from rann_jax.features.decibels import power_to_db
from rann_jax.features.front_ends.base import FrontEnd, ImageFrontEnd
from rann_jax.features.front_ends.waveform import AndWaveform
from rann_jax.features.gammatone import gfcc
from rann_jax.features.mel import melspectrogram
from rann_jax.features.mfcc import mfcc

# The paper's window, 1380 samples at 44.1 kHz, as a duration.
WINDOW_SECONDS = 1380 / 44100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectral(FrontEnd):
    """Base class of the front ends that are computed from one spectrum per frame.

    Attributes:
      fmin: lowest frequency in Hz.
      fmax: highest frequency in Hz; None for the lower of 14000 Hz and Nyquist.
      win_length: window in samples; None for 1380 / 44100 seconds, or the hop if that is longer.
      n_fft: FFT length, at least `win_length`; None for `win_length`.
    """

    fmin: float = FMIN
    fmax: float | None = None
    win_length: int | None = None
    n_fft: int | None = None

    def spectrum(self) -> dict[str, Any]:
        """Return the arguments that all spectral features share, with the defaults filled in."""
        longest = max(round(self.sample_rate * WINDOW_SECONDS), self.hop_length)
        win_length = longest if self.win_length is None else self.win_length
        signal.check_positive(win_length=win_length)  # else the error would name n_fft, which follows from it
        return {
            "sr": self.sample_rate,
            "hop_length": self.hop_length,
            "win_length": win_length,
            "n_fft": win_length if self.n_fft is None else self.n_fft,
            "fmin": self.fmin,
            "fmax": upper_edge(self.sample_rate) if self.fmax is None else self.fmax,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMelBands(Spectral):
    """Base class of both front ends with a log-mel spectrogram in dB: `power_to_db(melspectrogram(y))`.

    Attributes:
      pad_mode: how the ends are extended, see `stft`.
      top_db: floor below the clip's peak in dB; None for none.
      htk: HTK's mel formula instead of Slaney's.
      norm: norm of the mel filters, see `melspectrogram`.
    """

    pad_mode: str = "constant"
    top_db: float | None = None
    htk: bool = False
    norm: str | float | None = "slaney"

    def features(self, y: jax.Array) -> jax.Array:
        """Return dB `(..., n_bins, T)`."""
        power = melspectrogram(
            y,
            n_mels=self.n_bins,
            pad_mode=self.pad_mode,
            htk=self.htk,
            norm=self.norm,
            **self.spectrum(),
        )
        return power_to_db(power, top_db=self.top_db)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMel(LogMelBands, ImageFrontEnd):
    """The log-mel spectrogram in dB."""

    name: ClassVar[str] = "log_mel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMelWavegram(LogMelBands, AndWaveform):
    """The log-mel spectrogram, plus the waveform for a second, learned branch."""

    name: ClassVar[str] = "log_mel+wavegram"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mfcc(Spectral, ImageFrontEnd):
    """Mel-frequency cepstral coefficients; by default as many as there are bands (ours).

    Attributes:
      n_mels: number of mel bands; None for `n_bins`.
      lifter: cepstral lifter, see `mfcc`.
    """

    name: ClassVar[str] = "mfcc"

    n_mels: int | None = None
    lifter: float = 0.0

    def features(self, y: jax.Array) -> jax.Array:
        """Return coefficients `(..., n_bins, T)`."""
        n_mels = self.n_bins if self.n_mels is None else self.n_mels
        return mfcc(y, n_mfcc=self.n_bins, n_mels=n_mels, lifter=self.lifter, **self.spectrum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gfcc(Spectral, ImageFrontEnd):
    """Gammatone-frequency cepstral coefficients; by default as many as there are filters (ours).

    Attributes:
      n_filters: number of gammatone filters; None for `n_bins`.
      pre_emphasis: pre-emphasis coefficient, 0 for none.
    """

    name: ClassVar[str] = "gfcc"

    n_filters: int | None = None
    pre_emphasis: float = 0.97

    def features(self, y: jax.Array) -> jax.Array:
        """Return coefficients `(..., n_bins, T)`."""
        return gfcc(
            y,
            n_gfcc=self.n_bins,
            n_filters=self.n_bins if self.n_filters is None else self.n_filters,
            pre_emphasis=self.pre_emphasis,
            **self.spectrum(),
        )
