"""A program that must refuse its arguments or files ends with one line on stderr and code 2."""

from collections.abc import Callable, Sequence

import pytest


def assert_one_error(stderr: str, *says: str) -> None:
    """Check that all that a program wrote to stderr is one error in one line, with these texts."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    for text in says:
        assert text in lines[0]


def refused(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """Run a program's `main` and return the single error line with which it ends."""
    assert main([str(a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert_one_error(said)
    return said.strip()
