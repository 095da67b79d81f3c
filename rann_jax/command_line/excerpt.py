"""Read a part of a recording, for the programs that display one."""

import math
from pathlib import Path

import numpy as np
import soundfile

from input_pipeline.audio import AudioError, check_rate, check_samples, open_sound


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
            check_rate(rate)
            if round(start * rate) >= length:
                raise ValueError(f"{file}: --start {start:g} is past the end: it lasts {length / rate:.3g} s")
            sound.seek(round(start * rate))
            y = sound.read(max(1, min(round(seconds * rate), length)), dtype="float32", always_2d=True)
        check_samples(y)
    except AudioError as error:
        raise ValueError(f"{file}: {error}") from None
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{file}: not a sound file that can be read ({error.error_string})") from None
    except TypeError:  # soundfile needs a format for files named .raw
        raise ValueError(f"{file}: headerless sound gives no sample rate: convert it to wav") from None
    return y.mean(axis=1), rate
