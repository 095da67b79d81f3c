"""Check options from a config or a flag; errors name the wrong option and list the valid ones."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

# The wording for each type, and what counts as it: also NumPy's numbers, and integers as floats.
KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("True or False", (bool, np.bool_)),
    int: ("a whole number", (Integral,)),
    float: ("a number", (Real,)),
    str: ("text", (str,)),
    types.NoneType: ("None", (types.NoneType,)),
}


def check(
    taker: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    of: str,
    also: Mapping[str, Any] | None = None,
    but: Iterable[str] = (),
) -> None:
    """Raise ValueError if `taker`, a class or function, lacks an option, or an option has the wrong type.

    Args:
      taker: its parameters are the valid options.
      options: the given options.
      of: what they are options of, for the message.
      also: options that are handled elsewhere, with their types.
      but: parameters that are not options.

    >>> def gain(*, low_db: float = -6.0): ...
    >>> check(gain, {"low_bd": -3.0}, of="gain")
    Traceback (most recent call last):
    ValueError: gain has no option 'low_bd': use one of low_db; did you mean 'low_db'?
    >>> check(gain, {"low_db": "loud"}, of="gain")
    Traceback (most recent call last):
    ValueError: gain: low_db='loud' must be a number
    """
    try:  # annotations are text in modules that import them from __future__
        parameters = inspect.signature(taker, eval_str=True).parameters.items()
    except NameError:  # a type that only type checkers import: whoever takes the options checks them
        parameters = inspect.signature(taker).parameters.items()
    known = {name: parameter.annotation for name, parameter in parameters if name not in but} | dict(
        also or {}
    )
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"{of} has no option {name!r}: use one of {', '.join(known)}" + did_you_mean(name, known)
            )
        _check_type(f"{of}: {name}", value, known[name])


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return the end of a message about an unknown word, which suggests a similar one if there is any.

    >>> did_you_mean("log_mell", ["log_mel", "mfcc"])
    "; did you mean 'log_mel'?"
    """
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_type(name: str, value: Any, annotation: Any) -> None:
    allowed = typing.get_args(annotation) or (annotation,)
    if not all(kind in KINDS for kind in allowed):
        return  # whoever takes the option checks it
    counted = tuple(cls for kind in allowed for cls in KINDS[kind][1])
    if not isinstance(value, counted) and not (bool in allowed and value in (0, 1)):
        raise ValueError(f"{name}={value!r} must be {' or '.join(KINDS[kind][0] for kind in allowed)}")
