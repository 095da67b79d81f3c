"""The parser of every program's command line but that of `rann_jax.main`, which has abseil's flags."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

_UNDERSCORED = re.compile(r"--[a-z]+(_[a-z]+)+(=\S*)?")


class Parser(argparse.ArgumentParser):
    """A parser of options that are written with dashes.

    It understands them with underscores too, as flags of `rann_jax.main` and keys of configs are written.
    Options cannot be abbreviated: a config's flags, which some programs pass on, would be taken for them.

    Args:
      program: name of the module that is run, such as rann_jax.predict.
      description: what `--help` says before the options, as it stands.
      epilog: what it says after them.
    """

    def __init__(self, program: str, description: str | None, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m {program}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(  # type: ignore[override]  # argparse's three overloads in one
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Return the options and the arguments that are not among them; `parse_args` too comes here."""
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([with_dashes(argument) for argument in given], namespace)


def with_dashes(argument: str) -> str:
    """Return an option, which may have a value after =, with dashes; any other argument as it is.

    >>> with_dashes("--data_dir=my_clips"), with_dashes("--config.data_dir=clips"), with_dashes("a_b.wav")
    ('--data-dir=my_clips', '--config.data_dir=clips', 'a_b.wav')
    """
    if not _UNDERSCORED.fullmatch(argument):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value
