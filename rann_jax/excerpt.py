"""Read a part of a recording, for the programs that display one."""

import math
from pathlib import Path

import numpy as np
import soundfile

from input_pipeline.audio import LOUDEST, RATES, open_sound


def read(file: Path, start: float, seconds: float) -> tuple[np.ndarray, int]:
    """Return a part of a recording, mono float32 `(N,)`, and its sample rate.

    Raises:
        ValueError: the file is missing or not readable sound, or the part is not in it; or the sample rate or
          samples are ones that preparation and prediction refuse too (`input_pipeline.audio`).
    """
    if not file.is_file():
        raise ValueError(f"{file}: " + ("not a file" if file.exists() else "no such file"))
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"--start={start:g}: it must be finite and not negative")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"--seconds={seconds:g}: it must be finite and positive")
    try:
        with open_sound(file) as sound:
            rate, length = sound.samplerate, sound.frames
            if not RATES[0] <= rate <= RATES[1]:
                raise ValueError(f"{file}: its rate is {rate} Hz, not between {RATES[0]} and {RATES[1]}")
            if round(start * rate) >= length:
                raise ValueError(f"{file}: --start {start:g} is past the end: it lasts {length / rate:.3g} s")
            sound.seek(round(start * rate))
            y = sound.read(max(1, min(round(seconds * rate), length)), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{file}: not a sound file that can be read ({error.error_string})") from None
    except TypeError:  # soundfile needs a format for files named .raw
        raise ValueError(f"{file}: headerless sound gives no sample rate: convert it to wav") from None
    if not np.isfinite(y).all():
        raise ValueError(f"{file}: NaN or infinite samples")
    if (peak := float(np.abs(y).max())) > LOUDEST:
        raise ValueError(f"{file}: samples of {peak:.0e} times full scale")
    return y.mean(axis=1), rate
