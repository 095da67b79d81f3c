"""docs/options.md lists the options that configs leave at their defaults, with these defaults."""

import dataclasses
import inspect
import re

import pytest

from input_pipeline.datasets import REGISTRY
from rann_jax.augment.policy import AUGMENTATIONS
from rann_jax.features.front_end import FRONT_ENDS
from rann_jax.optimizer import adam
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast

SECTIONS = dict(
    re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (REPOSITORY / "docs/options.md").read_text(), re.M | re.S)
)
OF_THE_RUN = {"sample_rate", "seconds"}  # keys of the config itself
OF_ALL = {"frames_per_second", "n_bins"}


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables' rows, without back quotes, the column of meanings and the headings."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip("` ") for cell in line[:-1]] for line in lines]


def shown(default: object) -> str:
    return f"{default:.2f}" if default == pytest.approx(32.7032, abs=1e-4) else repr(default)


def options(cls: type) -> dict[str, str]:
    return {f.name: shown(f.default) for f in dataclasses.fields(cls) if f.name not in OF_THE_RUN}


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_the_options_of_front_ends(name):
    parts = re.split(r"\n\n(?=`)", SECTIONS["Front ends: `config.feature`"])
    listed = dict(rows(parts[0]))
    if name != "wavegram":  # all of its options are those of every front end
        (own,) = [part for part in parts[1:] if f"`{name}`" in part.partition("\n")[0]]
        listed |= dict(rows(own))
    # The defaults of these two are those of configs/base.py and, for PANNs', configs/audioset.py.
    expected = options(FRONT_ENDS[name])
    assert OF_ALL <= expected.keys() == listed.keys()
    assert all(listed[option] == default for option, default in expected.items() if option not in OF_ALL)


def test_the_options_of_the_optimiser():
    parameters = inspect.signature(adam).parameters.items()
    expected = {
        name: "" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
        for name, parameter in parameters
        if name not in ("total_steps", "groups")
    }
    assert dict(rows(SECTIONS["Optimiser: `config.optimizer`"])) == expected | {"frozen": "()"}


def test_the_options_of_augmentations():
    section = SECTIONS["Augmentation: `config.augment`"]
    expected = [
        [name, option, default]
        for name, cls in AUGMENTATIONS.items()
        for option, default in options(cls).items()
    ]
    assert rows(section) == expected
    assert all(f"`{name}`" in section for name in AUGMENTATIONS)


def test_the_options_of_data_sets():
    listed = rows(SECTIONS["Data sets: `config.dataset`"])
    expected = [
        [name, option, repr(default)]
        for name, cls in REGISTRY.items()
        for option, default in cls.OPTIONS.items()
    ]
    assert sorted(listed) == sorted(expected)
