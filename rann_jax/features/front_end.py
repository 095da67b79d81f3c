"""The registry of front ends, which turn a waveform into an image of fixed size for the network.

Make a front end once, `front_end("log_mel", sample_rate=44100, seconds=8.0)`, then call it on waveforms
`(B, N)`, inside or outside `jax.jit`. It returns `(B, n_bins, n_frames)`, where `n_frames` is exactly
`frames_per_second * seconds` (`image.py` says how). Only the front ends of PANNs differ: they are framed as
PANNs were trained (`panns.py`). No front end normalises: the network has a BatchNorm over the bins.

To add a front end, write one dataclass with `name` and `features`, a subclass of `ImageFrontEnd`, and list it
in FRONT_ENDS and ImageName.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Any, ClassVar, Literal, overload

import jax
import jax.numpy as jnp

from rann_jax.features import signal
from rann_jax.features.band import C1, FMIN, upper_edge
from rann_jax.features.chroma import chroma_stft
from rann_jax.features.cqt import cqt
from rann_jax.features.image import FrontEnd, ImageFrontEnd
from rann_jax.features.panns import PannsLogMel, PannsLogMelWavegram
from rann_jax.features.resample import GREATEST_FACTOR, resample
from rann_jax.features.scalogram import scalogram
from rann_jax.features.spectral import Gfcc, LogMel, LogMelWavegram, Mfcc
from rann_jax.features.stft import amplitude_to_db, power_to_db
from rann_jax.features.tempogram import tempogram
from rann_jax.features.waveform import WaveformFrontEnd, Wavegram
from rann_jax.options import check, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chroma(ImageFrontEnd):
    """Chromagram of the STFT, `chroma_stft`: 12 rows, one per pitch class, or the octave in `n_bins` parts.

    Attributes:
      n_fft: FFT length; None for the power of two nearest to librosa's 2048 / 22050 seconds.
    """

    name: ClassVar[str] = "chroma"

    n_bins: int = 12
    n_fft: int | None = None

    def features(self, y: jax.Array) -> jax.Array:
        """Return chroma in 0..1, `(..., n_bins, T)`."""
        usual = 2 ** round(math.log2(2048 / 22050 * self.sample_rate))
        return chroma_stft(
            y,
            sr=self.sample_rate,
            n_fft=usual if self.n_fft is None else self.n_fft,
            hop_length=self.hop_length,
            n_chroma=self.n_bins,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cqt(ImageFrontEnd):
    """Constant-Q transform in dB: `amplitude_to_db(|cqt(y)|)` (range, resolution and rate are ours).

    The transform halves its hop at each lower octave, so its hop must be a multiple of a power of two. The
    waveform is resampled to the lowest rate that is high enough for the highest bin and at which
    `frames_per_second` gives such a hop. Frame t is therefore exactly at second `t / frames_per_second`;
    nothing is interpolated.

    Attributes:
      fmin: lowest centre frequency in Hz.
      bins_per_octave: None for the smallest number that keeps the highest bin below 14000 Hz and 0.8
        times Nyquist.
    """

    name: ClassVar[str] = "cqt"

    fmin: float = C1
    bins_per_octave: int | None = None

    def features(self, y: jax.Array) -> jax.Array:
        """Return dB `(..., n_bins, T)`."""
        bins_per_octave = self._fewest_bins() if self.bins_per_octave is None else self.bins_per_octave
        signal.check_positive(bins_per_octave=bins_per_octave)
        if not self.fmin > 0:
            raise ValueError(f"fmin={self.fmin:g} Hz must be positive")
        highest = self.fmin * 2 ** ((self.n_bins - 1) / bins_per_octave)
        # Resampling keeps frequencies below 0.45 times the lower rate.
        if not highest <= 0.45 * self.sample_rate:
            raise ValueError(
                f"n_bins={self.n_bins}, bins_per_octave={bins_per_octave} and fmin={self.fmin:g} Hz reach"
                f" {highest:g} Hz, above 0.9 times Nyquist, {0.45 * self.sample_rate:g} Hz: use fewer bins"
            )
        octaves = -(-self.n_bins // bins_per_octave)
        lowest = max(highest / 0.45, self.sample_rate / GREATEST_FACTOR)
        rate, hop_length = self._rate_and_hop(multiple=2 ** (octaves - 1), lowest=lowest)
        transform = cqt(
            # scale=True keeps the energy: levels are the same as at the waveform's own rate.
            resample(y, orig_sr=self.sample_rate, target_sr=rate, scale=True),
            sr=rate,
            hop_length=hop_length,
            fmin=self.fmin,
            n_bins=self.n_bins,
            bins_per_octave=bins_per_octave,
        )
        return amplitude_to_db(transform, top_db=None)

    def _fewest_bins(self) -> int:
        """Return the smallest number of bins per octave that puts all bins below the default upper edge."""
        top = upper_edge(self.sample_rate, share=0.8)
        if not 0 < self.fmin < top:
            raise ValueError(f"fmin={self.fmin:g} Hz must be above 0 and below {top:g} Hz")
        return max(1, math.ceil(self.n_bins / math.log2(top / self.fmin)))

    def _rate_and_hop(self, multiple: int, lowest: float) -> tuple[int, int]:
        """Return the lowest whole rate in Hz from `lowest` on with a hop divisible by `multiple`; the hop."""
        per_second = Fraction(self.frames_per_second).limit_denominator(10000)
        step = per_second * multiple
        step *= step.denominator
        rate = int(step * math.ceil(lowest / step))
        return rate, int(rate / per_second)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tempogram(ImageFrontEnd):
    """Autocorrelation tempogram: rows are lags of 0, 1, 2... frames (their number is ours).

    Attributes:
      win_length: frames in the autocorrelation window, at least `n_bins`; the default, 384, is librosa's.
    """

    name: ClassVar[str] = "tempogram"

    win_length: int = 384

    def features(self, y: jax.Array) -> jax.Array:
        """Return autocorrelation, at most 1, `(..., n_bins, T)`."""
        if self.win_length < self.n_bins:
            raise ValueError(
                f"win_length={self.win_length} frames are too few for {self.n_bins} lags:"
                f" use win_length={self.n_bins} or more, or fewer n_bins"
            )
        lags = tempogram(y, sr=self.sample_rate, hop_length=self.hop_length, win_length=self.win_length)
        return lags[..., : self.n_bins, :]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cwt(ImageFrontEnd):
    """Scalogram in dB: `power_to_db(scalogram(y))`, complex Morlet wavelet power over each hop (ours).

    Attributes:
      fmin: lowest centre frequency in Hz.
      fmax: highest centre frequency in Hz; None for the lower of 14000 Hz and 0.8 times Nyquist.
      wavelet: 'cmorB-C' with bandwidth B and centre C.
    """

    name: ClassVar[str] = "cwt"

    fmin: float = FMIN
    fmax: float | None = None
    wavelet: str = "cmor1.5-1.0"

    def features(self, y: jax.Array) -> jax.Array:
        """Return dB `(..., n_bins, T)`."""
        power = scalogram(
            y,
            sr=self.sample_rate,
            hop_length=self.hop_length,
            n_bins=self.n_bins,
            fmin=self.fmin,
            fmax=upper_edge(self.sample_rate, share=0.8) if self.fmax is None else self.fmax,
            wavelet=self.wavelet,
        )
        return power_to_db(power, top_db=None)


FRONT_ENDS: dict[str, type[FrontEnd]] = {
    cls.name: cls
    for cls in (
        LogMel,
        Mfcc,
        Gfcc,
        Chroma,
        Cqt,
        Tempogram,
        Cwt,
        Wavegram,
        LogMelWavegram,
        PannsLogMel,
        PannsLogMelWavegram,
    )
}

# The same names by what the front end returns, for type checkers.
ImageName = Literal["log_mel", "mfcc", "gfcc", "chroma", "cqt", "tempogram", "cwt", "panns_log_mel"]
WaveformName = Literal["wavegram", "log_mel+wavegram", "panns_log_mel+wavegram"]


@overload
def front_end(
    name: ImageName,
    sample_rate: int | None = None,
    seconds: float | None = None,
    frames_per_second: float | None = None,
    **options: Any,
) -> ImageFrontEnd: ...


@overload
def front_end(
    name: WaveformName,
    sample_rate: int | None = None,
    seconds: float | None = None,
    frames_per_second: float | None = None,
    **options: Any,
) -> WaveformFrontEnd: ...


@overload
def front_end(
    name: str,
    sample_rate: int | None = None,
    seconds: float | None = None,
    frames_per_second: float | None = None,
    **options: Any,
) -> FrontEnd: ...


def front_end(
    name: str,
    sample_rate: int | None = None,
    seconds: float | None = None,
    frames_per_second: float | None = None,
    **options: Any,
) -> FrontEnd:
    """Make and check the front end `name`: settings that cannot work fail here, not in training.

    A front end makes an image of one size: it crops a longer waveform to its first `seconds`, 8 s by
    default, and pads a shorter one with zeros at its end.

    Args:
      name: a key of FRONT_ENDS.
      sample_rate: sample rate of the waveforms in Hz; None for 44100, or PANNs' 32000.
      seconds: length of a clip; None for 8, or PANNs' 10.
      frames_per_second: frames per second of sound; None for 128, or PANNs' 100. Times `seconds` it must be
        a whole number.
      **options: attributes of that front end's class; all have `n_bins`.

    Returns:
      A hashable callable, `(B, N)` floating -> float32 `(B, n_bins, n_frames)`, or a dict where the
      network takes the waveform too (`FrontEnd.__call__`). Its attributes include `name`, `sample_rate`,
      `n_bins`, `n_frames`, `n_samples` and `hop_length`.

    Raises:
      ValueError: unknown name or option (the message lists the known ones), a number of frames that
        is not whole, or arguments that the feature rejects.

    >>> log_mel = front_end("log_mel", sample_rate=16000, seconds=1.0, n_bins=64)
    >>> log_mel(jnp.zeros((2, 16000))).shape
    (2, 64, 128)
    """
    if not isinstance(name, str) or name not in FRONT_ENDS:
        known = sorted(FRONT_ENDS)
        raise ValueError(
            f"unknown front end {name!r}: use one of {', '.join(known)}" + did_you_mean(str(name), known)
        )
    check(FRONT_ENDS[name], options, of=f"front end {name!r}")
    # What is not given is left to the class: PANNs' defaults differ from the others'.
    geometry: dict[str, Any] = {
        "sample_rate": sample_rate,
        "seconds": seconds,
        "frames_per_second": frames_per_second,
    }
    given = {argument: value for argument, value in geometry.items() if value is not None}
    made = FRONT_ENDS[name](**given, **options)
    # Tracing the whole feature runs every check and builds and caches every table it needs.
    jax.eval_shape(made, jax.ShapeDtypeStruct((1, made.n_samples), jnp.float32))
    return made
