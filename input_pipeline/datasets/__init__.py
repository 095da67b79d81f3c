"""One TFDS builder a data set; a new one is a new file and a line in the registry."""

from input_pipeline.datasets.audioset import Audioset
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.esc50 import Esc50
from input_pipeline.datasets.folder import Folder
from input_pipeline.datasets.fsdd import Fsdd
from input_pipeline.datasets.quickstart import Quickstart
from input_pipeline.datasets.ravdess import Ravdess

REGISTRY: dict[str, type[AudioBuilder]] = {
    "audioset": Audioset,
    "esc50": Esc50,
    "folder": Folder,
    "fsdd": Fsdd,
    "quickstart": Quickstart,
    "ravdess": Ravdess,
}

__all__ = ["REGISTRY", "AudioBuilder"]
