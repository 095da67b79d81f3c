"""CNN14 of the PyPI package panns-inference, loaded without the download that its import starts."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def panns_models() -> Iterator[ModuleType]:
    """Yield the module panns_inference.models, without importing the package itself.

    Raises:
      ModuleNotFoundError: panns-inference or torchlibrosa is not installed.
    """
    spec = importlib.util.find_spec("panns_inference")
    if spec is None:
        raise ModuleNotFoundError("panns-inference is in the extra `parity`")
    before = sys.modules.get("panns_inference")
    sys.modules["panns_inference"] = importlib.util.module_from_spec(spec)
    try:
        yield importlib.import_module("panns_inference.models")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "panns_inference"]:
            del sys.modules[name]
        if before is not None:
            sys.modules["panns_inference"] = before
