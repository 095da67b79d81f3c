"""DCASE 2020, task 1A: TAU Urban Acoustic Scenes 2020 Mobile, the scenes of 2019 through nine devices."""

from input_pipeline.datasets.dcase2019_task1a import Dcase2019Task1a


class Dcase2020Task1a(Dcase2019Task1a):
    """Clips of 10 s, 44.1 kHz, mono; the official split of the development set, train and test.

    The layout is that of 2019. The last part of a name is the device, `airport-barcelona-0-0-s1.wav`. Devices
    s4 to s6 occur only in split test.
    """

    HOMEPAGE = "https://zenodo.org/record/3819968"
    CITATION = (
        "T. Heittola, A. Mesaros, T. Virtanen. Acoustic scene classification in DCASE 2020 Challenge: "
        "generalization across devices and low complexity solutions. DCASE 2020 Workshop. "
        "Data: DOI 10.5281/zenodo.3819968"
    )
