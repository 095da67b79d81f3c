"""The check of options; its module's examples show the messages."""

from __future__ import annotations

import pytest

from rann_jax.options import check

pytestmark = pytest.mark.fast


def gain(*, low_db: float = -6.0, kind: str | None = None):
    """Its annotations are text, as in every module with this import."""


@pytest.mark.parametrize(
    ("options", "says"), [({"low_db": "loud"}, "a number"), ({"kind": 3}, "text or None")]
)
def test_types_are_checked_where_annotations_are_text(options, says):
    with pytest.raises(ValueError, match=f"^gain: .* must be {says}$"):
        check(gain, options, of="gain")


def test_a_type_that_only_type_checkers_know_is_left_to_the_taker():
    def taker(*, low_db: Decibels = -6.0):  # noqa: F821
        """Has an annotation that cannot be evaluated."""

    assert check(taker, {"low_db": "loud"}, of="gain") is None
    with pytest.raises(ValueError, match="gain has no option 'high_db'"):
        check(taker, {"high_db": 1}, of="gain")


def test_what_fits_is_accepted():
    assert check(gain, {"low_db": -3, "kind": None}, of="gain") is None
