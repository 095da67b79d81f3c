"""The registry of front ends: a waveform in, an image of fixed size for the network out.

A front end is made once, `front_end("log_mel", sample_rate=44100, seconds=8.0)`, and then called on
waveforms `(B, N)`, inside or outside `jax.jit`; it returns `(B, n_bins, n_frames)` with `n_frames`
exactly `frames_per_second * seconds`, as the network's strides need it. It does not normalise: the
network has a BatchNorm over the bins.

How the size is made exact, the same for every front end:

1. The waveform is cropped, or padded with zeros at its end, to `n_samples = sample_rate * seconds`.
2. `hop_length` is `sample_rate / frames_per_second` rounded to the nearest integer (halves up).
3. Frame t is centred at sample `t * hop_length`. Where the last frame's centre lies beyond the end,
   zeros are appended; frames beyond the last are dropped.

Defaults of `log_mel` (paper): 44.1 kHz, Hann window of 1380 samples, hop 345 (128 frames a second),
128 bins, 50-14000 Hz. At other rates the window keeps its duration and the upper edge is at most
Nyquist; FFT length equal to the window, zeros beyond the ends and no dB floor relative to the peak
are ours.

To add a front end, write one dataclass with `name` and `features`, and list it in FRONT_ENDS.
"""

import dataclasses
import difflib
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from rann_jax.features import signal
from rann_jax.features.mel import melspectrogram
from rann_jax.features.stft import power_to_db

# The paper's window, 1380 samples at 44.1 kHz, as a duration.
WINDOW_SECONDS = 1380 / 44100
FMIN, FMAX = 50.0, 14000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """What all front ends share: the rate, the size of the image, and how a clip is fitted to it.

    Attributes:
        sample_rate: of the waveforms, in Hz.
        seconds: length of a clip.
        frames_per_second: frames of the image in a second of sound.
        n_bins: rows of the image.
    """

    name: ClassVar[str]

    sample_rate: int = 44100
    seconds: float = 8.0
    frames_per_second: float = 128
    n_bins: int = 128

    def __post_init__(self) -> None:
        signal.check_positive(sample_rate=self.sample_rate, n_bins=self.n_bins)
        if self.frames_per_second <= 0 or self.seconds <= 0:
            raise ValueError("seconds and frames_per_second must be positive")
        frames = self.frames_per_second * self.seconds
        if abs(frames - round(frames)) > 1e-6 * frames or round(frames) < 1:
            nearest = max(1, round(frames)) / self.frames_per_second
            raise ValueError(
                f"frames_per_second={self.frames_per_second:g} times seconds={self.seconds:g} is"
                f" {frames:g} frames, not a whole number: use seconds={nearest!r}"
            )

    @property
    def n_frames(self) -> int:
        """Columns of the image."""
        return round(self.frames_per_second * self.seconds)

    @property
    def n_samples(self) -> int:
        """Samples of the clip that the image shows."""
        return math.floor(self.sample_rate * self.seconds + 0.5)

    @property
    def hop_length(self) -> int:
        """Samples between frames."""
        return max(1, math.floor(self.sample_rate / self.frames_per_second + 0.5))

    def features(self, y: jax.Array) -> jax.Array:
        """Return the image `(..., n_bins, T)` of a fitted waveform, T at least `n_frames`."""
        raise NotImplementedError

    def __call__(self, y: jax.Array) -> jax.Array:
        """Return float32 `(..., n_bins, n_frames)` of a waveform `(..., N)` at `sample_rate`."""
        return _image(self, signal.as_waveform(y))


@functools.partial(jax.jit, static_argnums=0)
def _image(front_end: FrontEnd, y: jax.Array) -> jax.Array:
    y = y[..., : front_end.n_samples]
    length = max(front_end.n_samples, (front_end.n_frames - 1) * front_end.hop_length)
    if y.shape[-1] < length:
        y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, length - y.shape[-1])])
    image = front_end.features(y)[..., : front_end.n_frames]
    wanted = (*y.shape[:-1], front_end.n_bins, front_end.n_frames)
    assert image.shape == wanted, f"{front_end.name} made {image.shape}, not {wanted}"
    return image


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMel(FrontEnd):
    """Log-mel spectrogram in dB: `power_to_db(melspectrogram(y))`.

    Attributes:
        fmin: lowest frequency in Hz.
        fmax: highest frequency in Hz; None for the lower of 14000 Hz and Nyquist.
        win_length: window in samples; None for 1380 / 44100 seconds, or the hop if that is longer.
        n_fft: FFT length; None for `win_length`.
        pad_mode: how the ends are extended, see `stft`.
        top_db: floor below the clip's peak in dB; None for none.
        htk: HTK's mel formula instead of Slaney's.
        norm: of the mel filters, see `melspectrogram`.
    """

    name: ClassVar[str] = "log_mel"

    fmin: float = FMIN
    fmax: float | None = None
    win_length: int | None = None
    n_fft: int | None = None
    pad_mode: str = "constant"
    top_db: float | None = None
    htk: bool = False
    norm: str | float | None = "slaney"

    def features(self, y: jax.Array) -> jax.Array:
        """Return dB `(..., n_bins, T)`."""
        win_length = self.win_length or default_window(self)
        power = melspectrogram(
            y,
            sr=self.sample_rate,
            n_fft=self.n_fft or win_length,
            win_length=win_length,
            hop_length=self.hop_length,
            pad_mode=self.pad_mode,
            n_mels=self.n_bins,
            fmin=self.fmin,
            fmax=default_fmax(self.fmax, self.sample_rate),
            htk=self.htk,
            norm=self.norm,
        )
        return power_to_db(power, top_db=self.top_db)


def default_window(front_end: FrontEnd) -> int:
    """Return the paper's window at this rate in samples; the hop, if that is longer."""
    return max(round(front_end.sample_rate * WINDOW_SECONDS), front_end.hop_length)


def default_fmax(fmax: float | None, sample_rate: int) -> float:
    """Return `fmax`, or for None the paper's 14000 Hz held below Nyquist."""
    return min(FMAX, sample_rate / 2) if fmax is None else fmax


FRONT_ENDS: dict[str, type[FrontEnd]] = {cls.name: cls for cls in (LogMel,)}


def _closest(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def front_end(
    name: str,
    sample_rate: int = 44100,
    seconds: float = 8.0,
    frames_per_second: float = 128,
    **options: Any,
) -> FrontEnd:
    """Make the front end `name`, checked: whatever cannot work is refused here, not in training.

    Args:
        name: a key of FRONT_ENDS.
        sample_rate: of the waveforms, in Hz.
        seconds: length of a clip.
        frames_per_second: frames per second of sound; with `seconds` it must give whole frames.
        **options: the attributes of that front end's class; `n_bins` is common to all.

    Returns:
        A hashable callable, `(B, N)` floating -> float32 `(B, n_bins, n_frames)`, with attributes
        `name`, `sample_rate`, `n_bins`, `n_frames`, `n_samples`, `hop_length`.

    Raises:
        ValueError: unknown name or option (the message lists what exists), a number of frames that
            is not whole, or arguments the feature refuses.

    >>> log_mel = front_end("log_mel", sample_rate=16000, seconds=1.0, n_bins=64)
    >>> log_mel(jnp.zeros((2, 16000))).shape
    (2, 64, 128)
    """
    if name not in FRONT_ENDS:
        known = sorted(FRONT_ENDS)
        raise ValueError(
            f"unknown front end {name!r}: there are {', '.join(known)}" + _closest(name, known)
        )
    known = [field.name for field in dataclasses.fields(FRONT_ENDS[name])]
    for option in options:
        if option not in known:
            raise ValueError(
                f"front end {name!r} has no option {option!r}: there are {', '.join(known)}"
                + _closest(option, known)
            )
    made = FRONT_ENDS[name](
        sample_rate=sample_rate, seconds=seconds, frames_per_second=frames_per_second, **options
    )
    # Tracing the whole feature runs every check and builds, once, every table it needs.
    jax.eval_shape(made, jax.ShapeDtypeStruct((1, made.n_samples), jnp.float32))
    return made
