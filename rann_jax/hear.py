"""A trained model behind the HEAR benchmark's interface (Turian et al., PMLR 176, 2022).

  model = rann_jax.hear.load_model("runs/quickstart")
  rann_jax.hear.get_scene_embeddings(audio, model)

Names and shapes are those of https://hearbenchmark.com/hear-api.html; arrays are NumPy arrays. As that
interface specifies, audio is at `model.sample_rate`, full scale +-1.
"""

import numpy as np

from rann_jax.tagger import Tagger
from rann_jax.tagging.sound import checked

HOP_SECONDS = 0.05  # HEAR recommends a timestamp at least every 50 ms


class Model:
    """A model with the attributes that HEAR requires.

    Attributes:
      sample_rate: Hz.
      scene_embedding_size: D.
      timestamp_embedding_size: D.
    """

    def __init__(self, tagger: Tagger):
        self.tagger = tagger
        self.sample_rate = tagger.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = tagger.embedding_size

    def __repr__(self) -> str:
        return f"Model({self.tagger!r})"


def load_model(model_file_path: str) -> Model:
    """Load the model of a workdir; raise ConfigError as `Tagger.load` does."""
    return Model(Tagger.load(model_file_path))


def get_scene_embeddings(audio: np.ndarray, model: Model) -> np.ndarray:
    """Return (n_sounds, D) embeddings of (n_sounds, n_samples); raise as `get_timestamp_embeddings` does."""
    check_sounds(audio)
    return np.stack([model.tagger.embed(sound, model.sample_rate) for sound in audio])


def check_sounds(audio: np.ndarray) -> None:
    """Raise ValueError unless audio is (n_sounds, n_samples) and not empty."""
    if audio.ndim != 2 or not audio.size:
        raise ValueError(f"audio must be (n_sounds, n_samples) and not empty, not of shape {audio.shape}")


def get_timestamp_embeddings(audio: np.ndarray, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings (n_sounds, T, D) of (n_sounds, n_samples), and their times (n_sounds, T) in ms.

    A window is centred on each timestamp; the sound is padded with silence at both ends.

    Raises:
      ValueError: there is no sound, or it is one that `Tagger.tag` refuses.
    """
    check_sounds(audio)
    size = model.tagger.crop_samples
    n_samples = audio.shape[-1]
    times = np.arange(0, n_samples / model.sample_rate, HOP_SECONDS)
    starts = np.rint(times * model.sample_rate).astype(int)
    before = size // 2
    embedded = []
    for sound in audio:
        padded = np.pad(checked(sound), (before, size))
        rows = [
            model.tagger.embed_windows(np.stack([padded[s : s + size] for s in chunk]))
            for chunk in np.array_split(starts, -(-len(starts) // model.tagger.batch_size))
        ]
        embedded.append(np.concatenate(rows))
    return np.stack(embedded), np.tile(times * 1000, (len(audio), 1))
