"""Where compiled programs are kept."""

from pathlib import Path

import jax
import pytest

from rann_jax import compilation_cache


@pytest.fixture
def setting(monkeypatch):
    """The setting of JAX, put back afterwards."""
    before = jax.config.values["jax_compilation_cache_dir"]
    yield lambda value: jax.config.update("jax_compilation_cache_dir", value)
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.fast
def test_in_the_users_cache_by_kind_of_processor(setting, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    setting(None)
    compilation_cache.enable()
    folder = Path(jax.config.values["jax_compilation_cache_dir"])
    assert folder.parent == tmp_path / ".cache" / "rann_jax" / "compiled"
    setting(None)
    monkeypatch.setattr(Path, "read_text", lambda path: "flags\t\t: fpu avx2\n")
    compilation_cache.enable()
    other = Path(jax.config.values["jax_compilation_cache_dir"])
    assert other.parent == folder.parent
    assert other != folder


@pytest.mark.fast
def test_where_jax_was_told(setting, tmp_path):
    setting(str(tmp_path))
    compilation_cache.enable()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
