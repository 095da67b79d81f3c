"""Audio features as pure functions of the waveform: `(..., N)` floating -> float32 `(..., F, T)`.

Names, arguments and defaults are librosa's wherever librosa has the function, and "equal to librosa" means
for these arguments. The following are not supported:

- a spectrogram instead of the waveform (`S`, `C`), except in `mfcc`;
- `dtype` and `out`: results are new arrays, float32 or complex64;
- `tuning=None` of chroma and CQT, which librosa estimates from the data;
- `cqt_mode` of chroma; `axis` of `resample`; `ref`, `axis`, `max_axis`, `zi` and `return_zf` of `pcen`;
- `ref` and `feature` of `onset_strength`, and these arguments that librosa passes on to the mel spectrogram:
  `win_length`, `window`, `pad_mode`, `power`, `htk` and `norm`;
- arguments that `delta` passes on to `scipy.signal.savgol_filter`, such as `cval`;
- resamplers and padding modes other than those that each docstring lists.

Every feature can be jitted, vmapped and differentiated, even at digital silence.
"""

from rann_jax.features.cens import chroma_cens
from rann_jax.features.chroma import chroma_cqt, chroma_stft
from rann_jax.features.cqt import cqt, vqt
from rann_jax.features.cyclic_tempogram import cyclic_tempogram
from rann_jax.features.decibels import amplitude_to_db, power_to_db
from rann_jax.features.front_end import FRONT_ENDS, front_end
from rann_jax.features.front_ends.base import FrontEnd, ImageFrontEnd
from rann_jax.features.front_ends.waveform import WaveformFrontEnd
from rann_jax.features.gammatone import gammatonegram, gfcc
from rann_jax.features.istft import istft
from rann_jax.features.mel import melspectrogram
from rann_jax.features.mfcc import delta, mfcc
from rann_jax.features.onset import onset_strength
from rann_jax.features.pcen import pcen
from rann_jax.features.resample import resample
from rann_jax.features.scalogram import scalogram
from rann_jax.features.stft import stft
from rann_jax.features.tempogram import fourier_tempogram, tempogram
from rann_jax.features.wavelet import cwt, dwt, wavedec

__all__ = [
    "FRONT_ENDS",
    "FrontEnd",
    "ImageFrontEnd",
    "WaveformFrontEnd",
    "amplitude_to_db",
    "chroma_cens",
    "chroma_cqt",
    "chroma_stft",
    "cqt",
    "cwt",
    "cyclic_tempogram",
    "delta",
    "dwt",
    "fourier_tempogram",
    "front_end",
    "gammatonegram",
    "gfcc",
    "istft",
    "melspectrogram",
    "mfcc",
    "onset_strength",
    "pcen",
    "power_to_db",
    "resample",
    "scalogram",
    "stft",
    "tempogram",
    "vqt",
    "wavedec",
]
