"""Where compiled programs are cached."""

from pathlib import Path

import jax
import pytest

from rann_jax import export, predict
from rann_jax.devices import compilation_cache
from rann_jax.errors import ConfigError
from rann_jax.serve import __main__ as serve


@pytest.fixture
def setting(monkeypatch):
    """A function that changes JAX's setting, which is restored afterwards."""
    before = jax.config.values["jax_compilation_cache_dir"]
    yield lambda value: jax.config.update("jax_compilation_cache_dir", value)
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.fast
def test_the_default_is_the_users_cache_by_processor(setting, monkeypatch, tmp_path):
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
def test_no_cache_without_a_home_folder(setting, monkeypatch):
    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    setting(None)
    compilation_cache.enable()
    assert jax.config.values["jax_compilation_cache_dir"] is None


@pytest.mark.fast
def test_a_folder_set_in_jax_is_kept(setting, tmp_path):
    setting(str(tmp_path))
    compilation_cache.enable()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)


@pytest.mark.fast
@pytest.mark.parametrize("program", [predict, serve, export], ids=["predict", "serve", "export"])
def test_programs_enable_the_cache_first(program, monkeypatch, tmp_path):
    """They enable it before they load the model, so before anything is compiled."""
    if program is serve:
        pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
        pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    order = []

    def load(*_, **__):
        order.append("load")
        raise ConfigError("enough")

    monkeypatch.setattr(compilation_cache, "enable", lambda: order.append("enable"))
    monkeypatch.setattr(program.Tagger if program is export else program, "load", load)
    (tmp_path / "a.wav").touch()
    more = {predict: [str(tmp_path)], serve: [], export: ["--to", "onnx"]}[program]
    assert program.main(["model", *more]) == 2
    assert order == ["enable", "load"]
