"""Spectrogram of bounded size for a picture, computed while a sound of any length is streamed.

The number of columns is limited; if a sound is longer, pairs of neighbours are merged.
"""

from collections.abc import Callable, Iterable, Iterator

import librosa
import numpy as np
import scipy.fft

MEL_BANDS = 96
FRAME_SECONDS = 0.046  # (ours) 2048 samples at 44.1 kHz
TICKS = (250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz


class Columns:
    """Columns of numbers over time, at most `limit` of them.

    >>> columns = Columns(2, np.maximum)
    >>> for second in range(5):
    ...     columns.add(second, np.array([second]))
    >>> columns.begins, [int(column[0]) for column in columns.values]
    ([0, 4], [3, 4])
    """

    def __init__(self, limit: int, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self.begins: list[float] = []
        self.values: list[np.ndarray] = []
        self.counts: list[int] = []
        self._limit, self._combine, self._full = limit, combine, 1

    def add(self, begin: float, value: np.ndarray) -> None:
        """Add the column that begins at `begin`, in seconds."""
        if self.counts and self.counts[-1] < self._full:
            self.values[-1] = self._combine(self.values[-1], value)
            self.counts[-1] += 1
            return
        if len(self.values) == self._limit:
            pairs = zip(self.values[::2], self.values[1::2], strict=True)
            self.values = [self._combine(a, b) for a, b in pairs]
            self.begins = self.begins[::2]
            self._full *= 2
            self.counts = [self._full] * len(self.values)
        self.begins.append(begin)
        self.values.append(value)
        self.counts.append(1)


class MelColumns:
    """Mel powers of a sound that is streamed in blocks.

    Args:
      rate: sample rate of the sound, Hz.
      highest: the highest frequency of interest, Hz; at most half the rate is shown.
      limit: largest number of columns.
    """

    def __init__(self, rate: int, highest: float, limit: int):
        self._rate = rate
        # With shorter frames some of the lowest bands would have no bin.
        self._n_fft = 1 << max(9, round(np.log2(rate * FRAME_SECONDS)))
        self._fmax = min(highest, rate / 2)
        self._mel = librosa.filters.mel(sr=rate, n_fft=self._n_fft, n_mels=MEL_BANDS, fmax=self._fmax)
        self._window = np.hanning(self._n_fft + 1)[:-1].astype(np.float32)
        self._powers = Columns(limit, np.add)
        self._left = np.zeros(0, np.float32)
        self._frames = 0

    def watching(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the blocks (n,) of the sound unchanged, after adding them to the spectrogram."""
        for block in blocks:
            self._see(block)
            yield block

    def _see(self, block: np.ndarray) -> None:
        size, hop = self._n_fft, self._n_fft // 2
        sound = np.concatenate([self._left, block])
        if len(sound) < size:
            self._left = sound
            return
        frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
        power = np.square(np.abs(scipy.fft.rfft(frames * self._window, axis=-1))) @ self._mel.T
        for column in power:
            self._powers.add(self._frames * hop / self._rate, column)
            self._frames += 1
        self._left = sound[len(frames) * hop :].copy()

    def decibels(self) -> tuple[list[float], np.ndarray]:
        """Return, after the last block, the columns' beginnings in seconds and mean powers in dB.

        The powers are (columns, MEL_BANDS).
        """
        if not self._frames:  # shorter than a frame
            self._see(np.zeros(self._n_fft, np.float32))
        power = np.array(self._powers.values) / np.array(self._powers.counts)[:, None]
        return self._powers.begins, 10 * np.log10(np.maximum(power, 1e-12))

    def ticks(self) -> list[tuple[int, float]]:
        """Return round frequencies in Hz, and the row of each, 0 to MEL_BANDS - 1."""
        centers = librosa.mel_frequencies(MEL_BANDS + 2, fmax=self._fmax)[1:-1]
        shown = [hz for hz in TICKS if hz < centers[-1]]
        return list(zip(shown, np.interp(shown, centers, np.arange(MEL_BANDS)).tolist(), strict=True))
