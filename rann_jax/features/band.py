"""Default frequency limits of the front ends, in Hz."""

# The edges of the paper's log-mel spectrogram.
FMIN, FMAX = 50.0, 14000.0

# librosa's lowest note of the CQT.
C1 = 440.0 * 2 ** (-45 / 12)  # Hz: 45 semitones below the A of 440 Hz, as in librosa


def upper_edge(sample_rate: float, share: float = 1.0) -> float:
    """Return 14000 Hz, or `share` of the Nyquist frequency where that is lower.

    >>> upper_edge(44100), upper_edge(16000), upper_edge(16000, share=0.8)
    (14000.0, 8000.0, 6400.0)
    """
    return min(FMAX, share * sample_rate / 2)
