"""Compiled programs are kept, so that the second start of a run does not compile again."""

import hashlib
import platform
import re
from contextlib import suppress
from pathlib import Path

import jax

DEFAULT = "~/.cache/rann_jax/compiled"


def enable() -> None:
    """Keep programs in the user's cache, unless JAX was already told where (jax_compilation_cache_dir).

    Nothing is kept for a user without a home folder.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        with suppress(RuntimeError):
            folder = Path(DEFAULT).expanduser() / _processor()
            jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """A name for this kind of CPU: a program for another may use instructions that this one lacks.

    Machines of a cluster share the home folder and not always the processor.
    """
    try:
        features = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        features = None
    known = features[0] if features else platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
