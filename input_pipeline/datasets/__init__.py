"""One TFDS builder a data set; a new one is a new file and a line in the registry."""

from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.quickstart import Quickstart

REGISTRY: dict[str, type[AudioBuilder]] = {
    "quickstart": Quickstart,
}

__all__ = ["REGISTRY", "AudioBuilder"]
