"""How a test runs a program that must refuse its arguments or files."""

from collections.abc import Callable, Sequence

import pytest


def refused(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """Run a program's `main` and return the single error line with which it ends."""
    assert main([str(a) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line
