"""Which errors say nothing about the files that could not be read."""

import errno

import pytest

from rann_jax.saved.read_failure import may_pass, reason

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), True),
        (ValueError("NOT_FOUND: reading failed [os_error_code='116']"), True),
        (ValueError("NOT_FOUND: reading failed [os_error_code='2']"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (ValueError("its record lacks labels"), False),
    ],
)
def test_what_may_pass(error, passes):
    assert may_pass(error) == passes
    assert "\n" not in reason(error)


def test_an_error_that_led_to_another_counts_unless_it_was_suppressed():
    def raised(suppressed: bool) -> Exception:
        try:
            try:
                raise OSError(errno.EIO, "Input/output error")
            except OSError as cause:
                if suppressed:
                    raise ValueError("not JSON") from None
                raise ValueError("not JSON") from cause
        except ValueError as error:
            return error

    assert may_pass(raised(suppressed=False))
    assert not may_pass(raised(suppressed=True))
