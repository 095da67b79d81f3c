"""Everything on the host before the device, from sound files to batches. It does not import rann_jax.

`prepare` makes a `Prepared` copy, from which `train_batches` and `eval_batches` read; `survey` looks at a
folder of sounds. What users can mend is a `DataError`. Each is documented where it is: `preparation`,
`prepared`, `loader`, `folder_survey` and `errors`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from input_pipeline.errors import DataError as DataError
    from input_pipeline.folder_survey import survey as survey
    from input_pipeline.loader import eval_batches as eval_batches
    from input_pipeline.loader import train_batches as train_batches
    from input_pipeline.preparation import prepare as prepare
    from input_pipeline.prepared import Prepared as Prepared

# Loaded on first use: what reads sound files only, such as `rann_jax.predict`, needs no TFDS and no loader.
_NAMES = {
    "DataError": "errors",
    "Prepared": "prepared",
    "eval_batches": "loader",
    "prepare": "preparation",
    "survey": "folder_survey",
    "train_batches": "loader",
}


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(importlib.import_module(f"input_pipeline.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
