"""The registry of front ends, which turn a waveform into an image of fixed size for the network.

Make a front end once, `front_end("log_mel", sample_rate=44100, seconds=8.0)`, then call it on waveforms
`(B, N)`, inside or outside `jax.jit`. It returns `(B, n_bins, n_frames)`, where `n_frames` is exactly
`frames_per_second * seconds` (`front_ends/base.py` says how). Only the front ends of PANNs differ: they are
framed as PANNs were trained (`front_ends/panns.py`). No front end normalises: the network has a BatchNorm
over the bins.

To add a front end, write one dataclass with `name` and `features` in `front_ends/`, a subclass of
`ImageFrontEnd`, and list it in FRONT_ENDS and ImageName.
"""

from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from rann_jax.features.front_ends.base import FrontEnd, ImageFrontEnd
from rann_jax.features.front_ends.chroma import Chroma
from rann_jax.features.front_ends.cqt import Cqt
from rann_jax.features.front_ends.cwt import Cwt
from rann_jax.features.front_ends.panns import PannsLogMel, PannsLogMelWavegram
from rann_jax.features.front_ends.spectral import Gfcc, LogMel, LogMelWavegram, Mfcc
from rann_jax.features.front_ends.tempogram import Tempogram
from rann_jax.features.front_ends.waveform import WaveformFrontEnd, Wavegram
from rann_jax.options import check, did_you_mean

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
