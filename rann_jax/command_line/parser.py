"""The parser of every program's command line but that of `rann_jax.main`, which has abseil's flags."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any


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
        return super().parse_known_args([self._with_dashes(argument) for argument in given], namespace)

    def _with_dashes(self, argument: str) -> str:
        """Return one of this parser's options, which may have a value after =, with dashes; else as it is."""
        name, equals, value = argument.partition("=")
        dashed = name.replace("_", "-")
        return dashed + equals + value if dashed in self._option_string_actions else argument
