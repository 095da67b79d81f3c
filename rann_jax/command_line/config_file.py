"""Load config files with command-line overrides, and explain what is wrong with them in one line."""

import io
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr

from absl import flags
from ml_collections import ConfigDict, config_flags

from rann_jax.errors import ConfigError
from rann_jax.options import did_you_mean
from rann_jax.schema import OPEN, check_known

# How a traceback begins the message of an error that a config file may raise: its class says nothing.
_RAISED = r"^(ValueError|rann_jax\.errors\.ConfigError|input_pipeline\.errors\.DataError): "


def define_config(
    values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None
) -> flags.FlagHolder:
    """Define --config and the --config.KEY=VALUE flags found in `argv` (None: the program's command line)."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "The experiment: configs/NAME.py[:presets].",
        flag_values=values,
        sys_argv=argv,
        lock_config=False,
        accept_new_attributes=True,
    )


def load_config_file(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the config of `--config=PATH[:presets]` with overrides such as `--config.key=value`.

    Raises:
      ConfigError: there is no such file, preset or key, or a value has the wrong type.
    """
    for text in overrides:
        if not text.startswith("--config.") or "=" not in text:
            raise ConfigError(f"{text!r} is not understood: overrides are --config.key=value; see --help")
    argv = ["", f"--config={path}", *overrides]
    values = flags.FlagValues()
    flag = define_config(values, argv)
    with explaining(argv), warnings.catch_warnings():
        # ml_collections imports the file in this deprecated way.
        warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
        values(argv)
        check_keys(values)
    return flag.value


def check_keys(values: flags.FlagValues) -> None:
    """Lock the config of parsed flags, and check the keys of the file and those that were set.

    Raises:
      ConfigError: the file has a key that nothing reads, or lacks a key outside of OPEN that was set.
      Exception: whatever loading the file raised.
    """
    flag = values["config"]
    if flag.value is None:
        return
    flag.value.lock()  # raises if the file could not be loaded
    # The value of a key in the file is parsed by its type, that of a new key as a Python literal.
    new = [
        key
        for key in config_flags.get_override_values(flag)
        if values[f"config.{key}"].parser.flag_type() == "config_literal"
    ]
    for key in new:
        if key.partition(".")[0] not in OPEN:
            section, _, name = key.rpartition(".")
            beside = flag.value[section] if section else flag.value
            known = [other for other in beside if f"{section}.{other}".removeprefix(".") not in new]
            raise ConfigError(_no_such(key) + did_you_mean(name, known))
    check_known(flag.value)


@contextmanager
def collecting_notes() -> Iterator[list[str]]:
    """Collect the lines that a config file prints to stderr, as configs/folder.py does about the data.

    They are in the list when the block ends. If it raises, they are printed: they may tell why.
    """
    notes: list[str] = []
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield notes
    except BaseException:
        sys.stderr.write(said.getvalue())
        raise
    notes += said.getvalue().splitlines()


@contextmanager
def explaining(argv: Sequence[str]) -> Iterator[None]:
    """Turn what absl and ml_collections raise about flags into a ConfigError of one line."""
    try:
        yield
    except ConfigError:
        raise
    except (AttributeError, KeyError) as error:
        if getattr(error, "name", None) == "get_config":
            raise ConfigError("--config: the file must define get_config, as those in configs/ do") from error
        raise ConfigError(_part_of_a_value(argv, error) or _unknown_key(argv, error)) from error
    except flags.UnrecognizedFlagError as error:
        flag = f"--{error.flagname}"
        if not flag.startswith("--config."):
            raise ConfigError(str(error)) from error
        raise ConfigError(f"{flag} needs --config: name the config file whose key it sets") from error
    except SyntaxError as error:
        raise ConfigError(f"--config: {error.filename}, line {error.lineno}: {error.msg}") from error
    except TypeError as error:
        raise ConfigError(_part_of_a_value(argv, error) or str(error)) from error
    except (flags.Error, ValueError, OSError) as error:
        # The error of a failing config file holds its whole traceback; the last line says why.
        told = re.sub(_RAISED, "", str(error).strip().splitlines()[-1].strip())
        if re.search("Failed loading config file|earlier failure to load", str(error)):
            told = told.rpartition("earlier failure to load: ")[2].removesuffix(".")
            told = f"--config: {told}: paths start at the current folder; configs/ is in the checkout"
        raise ConfigError(told) from error


def _keys(argv: Sequence[str]) -> list[str]:
    return [arg.partition("=")[0].removeprefix("--config.") for arg in argv if arg.startswith("--config.")]


def _part_of_a_value(argv: Sequence[str], error: Exception) -> str:
    """Explain a flag such as --config.seed.x, where seed is a number; return '' for any other error.

    For text and tuples the error does not say which flag is wrong, so the deepest key is taken.
    """
    if not re.search("indices must be integers|does not support indexing", str(error)):
        return ""
    key = max(_keys(argv), key=lambda key: key.count("."), default="")
    whole = key.rpartition(".")[0]
    return f"--config.{key}: {whole} has no keys of its own: set --config.{whole}=VALUE" if whole else ""


def _unknown_key(argv: Sequence[str], error: AttributeError | KeyError) -> str:
    """Explain a flag with a part that ml_collections did not find, which its error quotes."""
    quoted = re.search(r"\w+", str(error).replace("\\'", "'"))
    name = quoted[0] if quoted else ""
    given = _keys(argv)
    for key in given:
        section, found, option = key.partition(f".{name}.")
        if found and section in OPEN:
            whole = f"{section}.{name}"
            return (
                f"--config.{key}: the config has no {whole}: set it with "
                f"--config.{whole}=\"{{'{option}': VALUE}}\""
            )
    key = next((key for key in given if name in key.split(".")), "")
    if not key:
        return f"--config: {' '.join(str((error.args or [error])[0]).split())}"
    return _no_such(key) + did_you_mean(name, re.findall(r'Did you mean "(\w+)"', str(error)))


def _no_such(key: str) -> str:
    return f"--config.{key}: the config has no such key; configs/base.py lists them"
