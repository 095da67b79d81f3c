"""The features that are measured: our function, the reference for correct values, and the peers.

A peer is a function of a batch of waveforms `(B, N)`. It prepares whatever should not be timed and returns
the call to time; a device may still be working when that call returns. Peers that are not installed raise
ImportError when prepared.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pywt

from rann_jax import distributed, features
from rann_jax.features.clipwise import devicewise

SR = 44100
SCALES = tuple(np.geomspace(2, 64, 8))
GFCC = {"n_fft": 2048, "hop_length": 512}

Call = Callable[[], Any]
Peer = Callable[[np.ndarray], Call]


@dataclasses.dataclass(frozen=True)
class Case:
    """A feature that is measured: one or more lines of the table."""

    name: str
    ours: Callable[[Any], Any]
    reference: Callable[[np.ndarray], Any]  # of one clip, `(N,)` or whatever `prepare` makes of it
    peers: dict[str, Peer]
    prepare: Callable[[np.ndarray], np.ndarray] = lambda y: y


def direct(function: Callable[[np.ndarray], Any]) -> Peer:
    """Return a peer that takes the whole batch in one call."""
    return lambda batch: functools.partial(function, batch)


def looped(function: Callable[[np.ndarray], Any]) -> Peer:
    """Return a peer that takes one clip after another."""
    return lambda batch: lambda: np.stack([function(clip) for clip in batch])


def shared(sounds: np.ndarray) -> jax.Array:
    """Return the clips split over all devices, or on one device if their number is not a multiple."""
    mesh = distributed.data_mesh()
    place = None if len(sounds) % mesh.size else distributed.split_batch(mesh)
    return jax.device_put(sounds, place)


def on_torch(build: Callable[[], Callable[[Any], Any]]) -> Peer:
    """Return a PyTorch peer, on a GPU if there is one; `build` makes the module or function."""

    def prepare(batch: np.ndarray) -> Call:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function = build()
        if isinstance(function, torch.nn.Module):
            function = function.to(device).eval()
        tensor = torch.from_numpy(np.array(batch)).to(device)

        def call() -> Any:
            with torch.no_grad():
                return function(tensor)

        return call

    return prepare


def torch_stft() -> Callable[[Any], Any]:
    import torch

    window = torch.hann_window(2048)

    def stft(y: Any) -> Any:
        return torch.stft(y, 2048, 512, window=window.to(y.device), pad_mode="constant", return_complex=True)

    return stft


def torch_stft_in_order() -> Callable[[Any], Any]:
    """Return an STFT whose result is copied from PyTorch's transposed view into librosa's and our order."""
    stft = torch_stft()
    return lambda y: stft(y).contiguous()


def torchlibrosa_stft() -> Callable[[Any], Any]:
    from torchlibrosa.stft import STFT

    return STFT(n_fft=2048, hop_length=512, pad_mode="constant")


def torchlibrosa_mel(is_log: bool) -> Callable[[Any], Any]:
    import torch
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    return torch.nn.Sequential(
        Spectrogram(n_fft=2048, hop_length=512, pad_mode="constant"),
        LogmelFilterBank(sr=SR, n_fft=2048, n_mels=128, is_log=is_log, top_db=None),
    )


def torchaudio(name: str, *, decibels: bool = False, **arguments: Any) -> Peer:
    """Return a transform of torchaudio; clips are mono channels, so that maxima are taken per clip."""

    def build() -> Callable[[Any], Any]:
        import torch
        import torchaudio.transforms

        transforms = [getattr(torchaudio.transforms, name)(sample_rate=SR, **arguments)]
        if decibels:
            transforms.append(torchaudio.transforms.AmplitudeToDB(top_db=None))
        return torch.nn.Sequential(torch.nn.Unflatten(1, (1, -1)), *transforms, torch.nn.Flatten(1, 2))

    return on_torch(build)


def nnaudio(name: str, **arguments: Any) -> Peer:
    """Return a module of nnAudio, which has `sr` and `pad_mode` as librosa does."""

    def build() -> Callable[[Any], Any]:
        import nnAudio.features

        module = getattr(nnAudio.features, name)
        return module(sr=SR, verbose=False, pad_mode="constant", hop_length=512, **arguments)

    return on_torch(build)


def librosax(path: str, **arguments: Any) -> Peer:
    """Return a function of librosax, jitted; its features take `y` by keyword.

    Like ours, it runs on all devices, each of which computes its own clips. Without `devicewise`, XLA would
    copy the whole batch to every device.
    """

    def prepare(batch: np.ndarray) -> Call:
        import librosax.feature

        function = functools.reduce(getattr, path.split("."), librosax)
        name = "y" if path.startswith("feature.") else "waveform"

        def of_part(y: jax.Array) -> jax.Array:
            return function(**{name: y}, **arguments)

        compiled = jax.jit(functools.partial(devicewise, of_part))
        y = shared(batch)
        return lambda: compiled(y)

    return prepare


def spafe_gfcc(y: np.ndarray) -> np.ndarray:
    from spafe.features.gfcc import gfcc
    from spafe.utils.preprocessing import SlidingWindow

    # spafe takes seconds and rounds down; half a sample more gives the intended lengths.
    window = SlidingWindow(2048.5 / SR, 512.5 / SR, "hamming")
    sound = {"fs": SR, "num_ceps": 20, "nfilts": 128, "nfft": 2048, "low_freq": 50, "window": window}
    return gfcc(y, **sound).T


def cyclic_tempogram(y: np.ndarray) -> np.ndarray:
    """Return the magnitude of librosa's Fourier tempogram, folded as in libfmp, in float64."""
    strength = np.abs(librosa.feature.fourier_tempogram(y=y, sr=SR))
    tempi = librosa.fourier_tempo_frequencies(sr=SR)
    wanted = 30 * 2.0 ** (np.arange(160) / 40)
    columns = [np.interp(wanted, tempi, column) for column in strength.T.astype(np.float64)]
    return np.stack(columns, axis=-1).reshape(4, 40, -1).mean(axis=0)


def mel_spectrogram(batch: np.ndarray) -> np.ndarray:
    return librosa.feature.melspectrogram(y=batch, sr=SR)


def _of_librosa(name: str, ours: Any, theirs: Any, peers: dict[str, Peer] | None = None) -> Case:
    """Return a case whose reference is librosa, called with the batch as its only argument."""
    return Case(name, ours, theirs, {"librosa": direct(theirs), **(peers or {})})


def _of_waveform(name: str, module: Any, peers: dict | None = None, **arguments: Any) -> Case:
    """Return a case whose function has the same name and arguments in librosa's `module` as here."""
    function = name.split()[0]
    ours = functools.partial(getattr(features, function), **arguments)
    theirs = getattr(module, function)
    if name.startswith("chroma"):
        arguments = {"tuning": 0.0, **arguments}
    if name.startswith("resample"):
        return _of_librosa(name, ours, lambda y: theirs(y, **arguments), peers)
    return _of_librosa(name, ours, lambda y: theirs(y=y, **arguments), peers)


def _spectral_cases() -> list[Case]:
    bands = {"n_fft": 2048, "n_mels": 128}
    slaney = {**bands, "hop_length": 512, "norm": "slaney", "mel_scale": "slaney", "pad_mode": "constant"}
    return [
        _of_waveform(
            "stft",
            librosa,
            {
                "torch": on_torch(torch_stft),
                "torchlibrosa": on_torch(torchlibrosa_stft),
                "nnAudio": nnaudio("STFT", n_fft=2048, output_format="Complex"),
                "librosax": librosax("stft", n_fft=2048, hop_length=512),
            },
        ),
        _of_waveform("stft in order", librosa, {"torch": on_torch(torch_stft_in_order)}),
        _of_waveform(
            "melspectrogram",
            librosa.feature,
            {
                "torchaudio": torchaudio("MelSpectrogram", **slaney),
                "torchlibrosa": on_torch(lambda: torchlibrosa_mel(is_log=False)),
                "nnAudio": nnaudio("MelSpectrogram", **bands),
                "librosax": librosax("feature.melspectrogram", sr=SR),
            },
            sr=SR,
        ),
        _of_librosa(
            "log-mel",
            jax.jit(lambda y: features.power_to_db(features.melspectrogram(y, sr=SR), top_db=None)),
            lambda y: librosa.power_to_db(mel_spectrogram(y), top_db=None),
            {
                "torchaudio": torchaudio("MelSpectrogram", decibels=True, **slaney),
                "torchlibrosa": on_torch(lambda: torchlibrosa_mel(is_log=True)),
            },
        ),
        _of_waveform(
            "mfcc",
            librosa.feature,
            {
                "torchaudio": torchaudio("MFCC", n_mfcc=20, melkwargs=slaney),
                "nnAudio": nnaudio("MFCC", n_mfcc=20, **bands),
                "librosax": librosax("feature.mfcc", sr=SR),
            },
            sr=SR,
        ),
        Case(
            "gfcc",
            lambda y: features.gfcc(y, sr=SR, n_gfcc=20, n_filters=128, center=False, **GFCC),
            spafe_gfcc,
            {"spafe": looped(spafe_gfcc)},
        ),
    ]


def _tonal_cases() -> list[Case]:
    fine = {"n_bins": 252, "bins_per_octave": 36}
    return [
        _of_waveform("cqt", librosa, {"nnAudio": nnaudio("CQT2010v2")}, sr=SR),
        _of_waveform("cqt 252 bins", librosa, {"nnAudio": nnaudio("CQT2010v2", **fine)}, sr=SR, **fine),
        _of_waveform("vqt", librosa, {"nnAudio": nnaudio("VQT", gamma=20)}, sr=SR, gamma=20),
        _of_waveform(
            "chroma_stft",
            librosa.feature,
            {"librosax": librosax("feature.chroma_stft", sr=SR, tuning=0.0)},
            sr=SR,
        ),
        # librosax's CQT chroma is off by 0.4 and takes seconds a clip; its tempograms do not compile.
        _of_waveform("chroma_cqt", librosa.feature, sr=SR),
        _of_waveform("chroma_cens", librosa.feature, sr=SR),
    ]


def _rhythmic_cases() -> list[Case]:
    return [
        _of_waveform("onset_strength", librosa.onset, sr=SR),
        _of_waveform("tempogram", librosa.feature, sr=SR),
        _of_waveform("fourier_tempogram", librosa.feature, sr=SR),
        Case("cyclic_tempogram", functools.partial(features.cyclic_tempogram, sr=SR), cyclic_tempogram, {}),
    ]


def _other_cases() -> list[Case]:
    def cwt(y: np.ndarray) -> np.ndarray:
        return np.moveaxis(pywt.cwt(y, SCALES, "morl", method="fft")[0], 0, -2)

    def wavedec(y: np.ndarray) -> np.ndarray:
        return np.concatenate(pywt.wavedec(y, "db4", level=6), axis=-1)

    @jax.jit
    def our_wavedec(y: Any) -> Any:
        return jnp.concatenate(features.wavedec(y, "db4", level=6), axis=-1)

    def on_mel(name: str, ours: Any, theirs: Any) -> Case:
        return dataclasses.replace(_of_librosa(name, ours, theirs), prepare=mel_spectrogram)

    def to(rate: int, **arguments: Any) -> dict[str, Any]:
        return {"orig_sr": SR, "target_sr": rate, **arguments}

    return [
        Case(
            "cwt",
            lambda y: features.cwt(y, SCALES, "morl"),
            cwt,
            {"pywt": direct(cwt)},
        ),
        Case("wavedec", our_wavedec, wavedec, {"pywt": direct(wavedec)}),
        on_mel(
            "pcen",
            functools.partial(features.pcen, sr=SR),
            lambda S: librosa.pcen(S, sr=SR),
        ),
        on_mel("delta", features.delta, lambda S: librosa.feature.delta(S)),
        _of_waveform("resample to 22050", librosa, **to(22050)),
        _of_waveform("resample to 16000", librosa, **to(16000)),
        _of_waveform("resample polyphase", librosa, **to(22050, res_type="polyphase")),
    ]


CASES = [*_spectral_cases(), *_tonal_cases(), *_rhythmic_cases(), *_other_cases()]
