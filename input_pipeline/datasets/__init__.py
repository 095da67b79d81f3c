"""One TFDS builder per data set. To add a data set, write a new file and add a line to the registry."""

from input_pipeline.datasets.audioset import Audioset
from input_pipeline.datasets.birdcall import Birdcall
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.dcase2019_task1a import Dcase2019Task1a
from input_pipeline.datasets.dcase2020_task1a import Dcase2020Task1a
from input_pipeline.datasets.emodb import Emodb
from input_pipeline.datasets.esc50 import Esc50
from input_pipeline.datasets.folder import Folder
from input_pipeline.datasets.fsdd import Fsdd
from input_pipeline.datasets.gtzan import Gtzan
from input_pipeline.datasets.icbhi import Icbhi
from input_pipeline.datasets.msos import Msos
from input_pipeline.datasets.quickstart import Quickstart
from input_pipeline.datasets.ravdess import Ravdess
from input_pipeline.datasets.rfcx import Rfcx
from input_pipeline.datasets.voxceleb import Voxceleb

REGISTRY: dict[str, type[AudioBuilder]] = {
    "audioset": Audioset,
    "birdcall": Birdcall,
    "dcase2019_task1a": Dcase2019Task1a,
    "dcase2020_task1a": Dcase2020Task1a,
    "emodb": Emodb,
    "esc50": Esc50,
    "folder": Folder,
    "fsdd": Fsdd,
    "gtzan": Gtzan,
    "icbhi": Icbhi,
    "msos": Msos,
    "quickstart": Quickstart,
    "ravdess": Ravdess,
    "rfcx": Rfcx,
    "voxceleb": Voxceleb,
}

__all__ = ["REGISTRY", "AudioBuilder"]
