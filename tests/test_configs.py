"""Presets of the configs: which values there are, and what they change."""

import pytest

from rann_jax.config_file import load_config_file
from rann_jax.errors import ConfigError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("presets", "says"),
    [
        ("esc50.py:size=medium", "preset size=medium is none of deck, small"),
        ("esc50.py:fold=6", "preset fold=6 is none of 1, 2, 3, 4, 5"),
        ("esc50.py:subset=esc20", "preset subset=esc20 is none of esc50, esc10"),
        ("esc50.py:augment=some", "preset augment=some is none of none, specaugment, mixup, all"),
        ("audioset.py:size=medium", "preset size=medium is none of deck, small"),
        ("ravdess.py:size=medium", "preset size=medium is none of deck, small"),
        ("ravdess.py:fold=5", "preset fold=5 is none of 1, 2, 3, 4"),
        ("msos.py:fold=1", "no preset 'fold'"),
        ("finetune.py:train=some", "preset train=some is none of all, probe"),
    ],
)
def test_a_preset_that_there_is_not_is_one_line(presets, says):
    with pytest.raises(ConfigError) as told:
        load_config_file(f"configs/{presets}")
    assert str(told.value).startswith(says)
