"""Config files and their overrides as the command line gives them; what is wrong with them, in one line."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from absl import flags
from ml_collections import ConfigDict, config_flags

from rann_jax.errors import ConfigError


def load_config_file(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config that `--config=PATH[:presets]` and `--config.key=value`... give a program.

    Raises:
      ConfigError: no such file, preset or key, or a value of another type.
    """
    for text in overrides:
        if not text.startswith("--config.") or "=" not in text:
            raise ConfigError(f"{text!r} is not understood: overrides are --config.key=value; see --help")
    argv = ["", f"--config={path}", *overrides]
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    with explaining(argv), warnings.catch_warnings():
        # How ml_collections imports the file is its own affair.
        warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
        values(argv)
        flag.value.keys()  # a file that could not be loaded is told only now
    return flag.value


@contextmanager
def explaining(argv: Sequence[str]) -> Iterator[None]:
    """Raise as ConfigError, in one line, what absl and ml_collections raise over flags."""
    try:
        yield
    except AttributeError as error:
        unknown = _unknown_key(argv, error)
        raise ConfigError(f"{unknown}: the config has no such key; configs/base.py lists them") from error
    except flags.UnrecognizedFlagError as error:
        flag = f"--{error.flagname}"
        if not flag.startswith("--config."):
            raise ConfigError(str(error)) from error
        raise ConfigError(f"{flag} needs --config: name the file of the config whose key it sets") from error
    except (flags.Error, ValueError, TypeError, OSError) as error:
        # A config file that fails is reported with its whole traceback: its last line says why.
        raise ConfigError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


def _unknown_key(argv: Sequence[str], error: AttributeError) -> str:
    """The flag whose key ml_collections did not find; its error begins with the last part, quoted."""
    quoted = re.search(r"\w+", str(error).replace("\\'", "'"))
    name = quoted[0] if quoted else ""
    given = (arg.partition("=")[0] for arg in argv if arg.startswith("--config."))
    return next((flag for flag in given if flag.endswith(f".{name}")), f"config.{name}")
