"""Comparison of the front end that PANNs' files hold as frozen arrays with the one that a config names."""

from collections.abc import Mapping

import numpy as np

from rann_jax.errors import ConfigError
from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.features.front_ends.panns import WINDOW_SECONDS, PannsBands, PannsLogMel

WINDOW = "spectrogram_extractor.stft.conv_real.weight"  # (1 + n_fft / 2, 1, n_fft)
FILTERS = "logmel_extractor.melW"  # (1 + n_fft / 2, bands)
# Relative to the filters' greatest value: torchlibrosa has librosa's filters in float32, as we do.
TOLERANCE = 1e-5


def check_front_end(entries: Mapping[str, np.ndarray], front_end: FrontEnd, *, where: str) -> None:
    """Raise ConfigError if a state_dict shows that it was trained with another front end.

    Window length and mel filters are compared; they differ between rates, numbers of bands and frequency
    ranges. The hop is in no file: it must be the one with which all PANNs were trained, 10 ms. A file without
    window and filters passes.
    """
    if WINDOW not in entries and FILTERS not in entries:
        return
    if not isinstance(front_end, PannsBands):
        raise ConfigError(
            f"{where}: was trained on PANNs' log-mel, but config.feature.name={front_end.name}: "
            "use panns_log_mel (or, for wavegram_logmel_cnn14, panns_log_mel+wavegram)"
        )
    window = entries[WINDOW].shape[-1] if WINDOW in entries and entries[WINDOW].ndim else front_end.n_fft
    if window != front_end.n_fft:
        raise ConfigError(
            f"{where}: was trained on windows of {window} samples, but config.sample_rate="
            f"{front_end.sample_rate} gives {front_end.n_fft}: set --config.sample_rate="
            f"{round(window / WINDOW_SECONDS)}"
        )
    published = PannsLogMel(sample_rate=front_end.sample_rate)
    if front_end.hop_length != published.hop_length:
        raise ConfigError(
            f"{where}: was trained on frames {published.hop_length} samples apart, but config.feature."
            f"frames_per_second={front_end.frames_per_second:g} gives {front_end.hop_length}: set "
            f"--config.feature.frames_per_second={published.frames_per_second:g}"
        )
    filters, ours = entries.get(FILTERS), front_end.mel_filters().T
    if filters is None:
        return
    if filters.shape != ours.shape or np.abs(filters - ours).max() > TOLERANCE * np.abs(ours).max():
        raise ConfigError(
            f"{where}: was trained on other mel filters ({FILTERS}, {filters.shape}) than config.feature "
            f"has: n_bins={front_end.n_bins}, fmin={front_end.fmin:g}, fmax={front_end.highest:g} Hz"
        )
