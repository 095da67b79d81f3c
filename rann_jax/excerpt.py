"""A part of a recording, as the programs that show what is in one read it."""

from pathlib import Path

import numpy as np
import soundfile


def read(file: Path, start: float, seconds: float) -> tuple[np.ndarray, int]:
    """Return a part of a recording, mono float32 `(N,)`, and its sample rate.

    Raises:
        ValueError: no such file, no sound that can be read, nothing or no numbers in the part asked for.
    """
    if not file.is_file():
        raise ValueError(f"{file}: " + ("not a file" if file.exists() else "no such file"))
    if start < 0 or seconds <= 0:
        raise ValueError("--start must not be negative and --seconds must be positive")
    try:
        with soundfile.SoundFile(file) as sound:
            rate, length = sound.samplerate, sound.frames
            if round(start * rate) >= length:
                raise ValueError(f"{file}: nothing from --start {start:g} on, it lasts {length / rate:.3g} s")
            sound.seek(round(start * rate))
            y = sound.read(max(1, round(seconds * rate)), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{file}: not a sound file that can be read ({error.error_string})") from None
    if not np.isfinite(y).all():
        raise ValueError(f"{file}: NaN or infinite samples")
    return y.mean(axis=1), rate
