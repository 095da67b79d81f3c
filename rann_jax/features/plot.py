"""Picture of a recording: its waveform and every feature, each with readable axes.

Matplotlib's Figure is used without pyplot, so there is no window and no global state.
"""

import math
from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from rann_jax.features.band import C1, FMIN, upper_edge
from rann_jax.features.front_end import front_end
from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.features.scalogram import frequencies

FRAMES_PER_SECOND = 128
DYNAMIC_RANGE = 80.0  # dB shown below the loudest cell
COEFFICIENTS = 40
FREQUENCY_TICKS = (62.5, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)
TEMPO_TICKS = (20, 30, 40, 60, 90, 120, 180, 300)
PITCH_CLASSES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
INK, PALE = "#22303c", "#8a97a3"


def hertz(frequency: float) -> str:
    """Format a frequency for an axis: 250, 1k, 62.5."""
    return f"{frequency / 1000:g}k" if frequency >= 1000 else f"{frequency:g}"


def place_frequencies(axes: Axes, centers: np.ndarray) -> None:
    """Label the rows at octaves; `centers` are the rows' centre frequencies in Hz."""
    labels: dict[float, str] = {}
    for tick in reversed(FREQUENCY_TICKS):
        row = float(np.interp(np.log(tick), np.log(centers), np.arange(len(centers))))
        if centers[0] <= tick <= centers[-1] and all(abs(row - other) > 8 for other in labels):
            labels[row] = hertz(tick)
    axes.set_yticks(list(labels), list(labels.values()))
    axes.set_ylabel("frequency (Hz)")


def _colour_bar(axes: Axes, drawn: ScalarMappable, label: str) -> Axes:
    bar = axes.figure.colorbar(drawn, ax=axes, pad=0.012, fraction=0.04, aspect=24)
    bar.set_label(label, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=9, length=3)
    bar.outline.set_visible(False)
    return bar.ax


def _image(axes: Axes, made: FrontEnd, values: np.ndarray, label: str, **colours: Any) -> None:
    frame = made.hop_length / made.sample_rate
    edges = (-frame / 2, (made.n_frames - 0.5) * frame, -0.5, len(values) - 0.5)
    drawn = axes.imshow(values, origin="lower", aspect="auto", extent=edges, **colours)
    _colour_bar(axes, drawn, label)


def _decibels(axes: Axes, made: FrontEnd, y: np.ndarray) -> None:
    values = np.asarray(made(y))
    peak = float(values.max())
    _image(axes, made, values, "dB", cmap="magma", vmin=peak - DYNAMIC_RANGE, vmax=peak)


def _standardised(axes: Axes, made: FrontEnd, y: np.ndarray) -> None:
    values = np.asarray(made(y))
    spread = values.std(axis=1, keepdims=True)
    centred = values - values.mean(axis=1, keepdims=True)
    values = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-6)
    _image(axes, made, values, "standard deviations", cmap="RdBu_r", vmin=-3, vmax=3)
    axes.set_ylabel("coefficient")


def _waveform(axes: Axes, y: np.ndarray, sample_rate: int) -> None:
    step = max(1, len(y) // 2000)
    columns = np.pad(y, (0, -len(y) % step), mode="edge").reshape(-1, step)
    seconds = np.arange(len(columns)) * step / sample_rate
    axes.fill_between(seconds, columns.min(axis=1), columns.max(axis=1), color="#2f6690", linewidth=0.4)
    axes.axhline(0, color=PALE, linewidth=0.5)
    loudest = max(float(np.abs(y).max()), 1e-3) * 1.08
    axes.set(ylim=(-loudest, loudest), ylabel="amplitude")
    # An invisible colour bar takes as much room as those of the other panels, so that all time axes align.
    _colour_bar(axes, ScalarMappable(Normalize(-90, 0)), "dB").set_visible(False)


def mel_centers(made: FrontEnd) -> np.ndarray:
    """Return the centre frequencies `(n_bins,)` in Hz of a `log_mel` front end with its default edges."""
    return librosa.mel_frequencies(made.n_bins + 2, fmin=FMIN, fmax=upper_edge(made.sample_rate))[1:-1]


def _log_mel(axes: Axes, y: np.ndarray, size: dict) -> None:
    made = front_end("log_mel", **size)
    _decibels(axes, made, y)
    place_frequencies(axes, mel_centers(made))


def _cwt(axes: Axes, y: np.ndarray, size: dict) -> None:
    made = front_end("cwt", **size)
    _decibels(axes, made, y)
    fmax = upper_edge(made.sample_rate, share=0.8)
    place_frequencies(axes, frequencies(made.n_bins, FMIN, fmax))


def _cqt(axes: Axes, y: np.ndarray, size: dict) -> None:
    per_octave = 24
    octaves = int(math.log2(upper_edge(size["sample_rate"], share=0.8) / C1))
    made = front_end("cqt", n_bins=per_octave * octaves, bins_per_octave=per_octave, **size)
    _decibels(axes, made, y)
    names = [f"C{octave + 1}" for octave in range(octaves)]
    axes.set_yticks(np.arange(octaves) * per_octave, names)
    axes.set_ylabel("note")


def _mfcc(axes: Axes, y: np.ndarray, size: dict) -> None:
    _standardised(axes, front_end("mfcc", n_bins=COEFFICIENTS, n_mels=128, **size), y)


def _gfcc(axes: Axes, y: np.ndarray, size: dict) -> None:
    _standardised(axes, front_end("gfcc", n_bins=COEFFICIENTS, n_filters=128, **size), y)


def _chroma(axes: Axes, y: np.ndarray, size: dict) -> None:
    made = front_end("chroma", **size)
    label = "share of the loudest"
    _image(axes, made, np.asarray(made(y)), label, cmap="viridis", vmin=0, vmax=1)
    axes.set_yticks(range(12), PITCH_CLASSES)
    axes.set_ylabel("pitch class")


def _tempogram(axes: Axes, y: np.ndarray, size: dict) -> None:
    made = front_end("tempogram", n_bins=384, **size)
    _image(axes, made, np.asarray(made(y)), "autocorrelation", cmap="cividis", vmin=0, vmax=1)
    per_minute = 60 * made.sample_rate / made.hop_length
    shown = [tempo for tempo in TEMPO_TICKS if per_minute / tempo < made.n_bins]
    axes.set_yticks([per_minute / tempo for tempo in shown], [str(tempo) for tempo in shown])
    axes.set_ylim(made.n_bins - 0.5, per_minute / 600)
    axes.set_ylabel("tempo (BPM)")


PANELS: dict[str, Callable[[Axes, np.ndarray, dict], None]] = {
    "Log-mel spectrogram": _log_mel,
    "Wavelet scalogram (complex Morlet)": _cwt,
    "Constant-Q transform": _cqt,
    "MFCC": _mfcc,
    "GFCC": _gfcc,
    "Chromagram": _chroma,
    "Tempogram": _tempogram,
}


def draw(y: np.ndarray, sample_rate: int, title: str = "") -> Figure:
    """Draw a recording and all its features.

    Args:
      y: waveform `(N,)`, floating.
      sample_rate: in Hz.
      title: title above the picture.

    Returns:
      a Matplotlib figure of eight panels, ready for `savefig`.

    Raises:
      ValueError: an empty or integer waveform, or a rate too low for the features.
    """
    frames = max(1, round(len(y) / sample_rate * FRAMES_PER_SECOND))
    size = {
        "sample_rate": sample_rate,
        "seconds": frames / FRAMES_PER_SECOND,
        "frames_per_second": FRAMES_PER_SECOND,
    }
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(15, 13), dpi=110, layout=layout, facecolor="white")
    panels = figure.subplots(4, 2).ravel()
    _waveform(panels[0], y, sample_rate)
    for axes, paint in zip(panels[1:], PANELS.values(), strict=True):
        paint(axes, y, size)
    for axes, name in zip(panels, ("Waveform", *PANELS), strict=True):
        axes.set_title(name, loc="left", fontsize=12, fontweight="bold", color=INK)
        axes.set_xlim(0, len(y) / sample_rate)
        axes.set_xlabel("seconds", color=INK)
        axes.yaxis.label.set_color(INK)
        axes.tick_params(colors=INK, labelsize=9, length=3)
        axes.spines[:].set_visible(False)
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=15, color=INK, parse_math=False)
    return figure
