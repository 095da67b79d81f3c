"""Keep compiled programs on disk, so that later starts of a run need not compile again."""

import hashlib
import platform
import re
from contextlib import suppress
from pathlib import Path

import jax

DEFAULT = "~/.cache/rann_jax/compiled"


def enable() -> None:
    """Keep compiled programs in the user's cache, unless jax_compilation_cache_dir is already set.

    For a user without a home folder nothing is kept.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        with suppress(RuntimeError):
            folder = Path(DEFAULT).expanduser() / _processor()
            jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """Return a name for this kind of CPU.

    A program compiled for another CPU may use instructions that this one lacks, and the machines of a cluster
    may share the home folder without having the same processor.
    """
    try:
        features = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        features = None
    known = features[0] if features else platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
