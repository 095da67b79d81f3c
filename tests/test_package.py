"""The package itself: `import rann_jax` is light, and its public names are loaded on first use."""

import subprocess
import sys

import pytest

import input_pipeline
import rann_jax

pytestmark = pytest.mark.fast


def printed(code: str) -> str:
    """Return what a new interpreter prints, in which nothing is imported yet."""
    command = [sys.executable, "-c", f"import rann_jax, sys; {code}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_import_is_light():
    assert printed("dir(rann_jax); print(sorted({'jax', 'numpy'} & set(sys.modules)))") == "[]"


def test_tagging_loads_nothing_that_prepares_data():
    code = "rann_jax.Tagger; print(sorted({'tensorflow_datasets', 'grain', 'matplotlib'} & set(sys.modules)))"
    assert printed(code) == "[]"


def test_names_of_the_pipeline_are_loaded_on_first_use():
    """Whatever is imported first: a submodule's name would hide that of a function."""
    names = ["DataError", "Prepared", "eval_batches", "prepare", "survey", "train_batches"]
    assert set(names) <= set(dir(input_pipeline))
    for first in ("pass", "import input_pipeline.preparation", "import input_pipeline.folder_survey"):
        code = (
            f"{first}; import input_pipeline; print([getattr(input_pipeline, n).__name__ for n in {names}])"
        )
        assert printed(code) == str(names)
    with pytest.raises(AttributeError, match="module 'input_pipeline' has no attribute 'prepares'"):
        _ = input_pipeline.prepares


def test_submodules_are_attributes():
    names = ["augment", "comparison", "features", "fusion", "hear", "interop", "metrics", "models"]
    assert printed(f"print([getattr(rann_jax, name).__name__ for name in {names}])") == str(
        [f"rann_jax.{name}" for name in names]
    )
    assert set(names) | {"Tagger", "TaggerEnsemble", "events_in"} <= set(dir(rann_jax))


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="module 'rann_jax' has no attribute 'featurs'"):
        _ = rann_jax.featurs


def test_what_a_user_can_mend_is_a_value_error(tmp_path):
    """Functions and classes refuse arguments alike, whether or not the programs use them too."""
    with pytest.raises(ValueError, match="holds no checkpoints"):
        rann_jax.Tagger.load(tmp_path)
    with pytest.raises(ValueError, match="unknown data set 'esc51'"):
        input_pipeline.prepare("esc51", prepared_dir=str(tmp_path), sample_rate=8000)
