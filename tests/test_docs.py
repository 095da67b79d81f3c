"""The documentation matches the code: the programs' own parsers accept its commands, and its names exist."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from absl import flags

from rann_jax import main as main_program
from rann_jax.command_line.config_file import load_config_file
from rann_jax.errors import ConfigError
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
TUTORIALS = [page for page in PAGES if "```sh" in page.read_text()]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line]


def read_config(overrides: list[str]) -> None:
    """Load the config file that a command line names, with its overrides."""
    path = next((value for name, value in options(overrides) if name == "--config"), None)
    if path is not None:
        load_config_file(path, [arg for arg in overrides if arg.startswith("--config.")])


def options(arguments: list[str]):
    """Yield (name, value) of absl flags."""
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        yield name, value if equals else next(rest)


def check_main(arguments: list[str]) -> None:
    own = [(name, value) for name, value in options(arguments) if not name.startswith("--config")]
    for name, value in own:
        flags.FLAGS[name.removeprefix("--")].parser.parse(value)
    assert main_program.__name__ == "rann_jax.main"  # the import defines the flags
    read_config(arguments)


def check(command: str) -> None:
    words = shlex.split(command)
    while re.match(r"RANN_[A-Z_]+=", words[0]):
        words.pop(0)
    if words[:2] == ["pip", "install"]:
        wanted = re.fullmatch(r"\.\[([a-z,]+)\]", words[-1])
        text = (REPOSITORY / "pyproject.toml").read_text()
        assert wanted
        assert all(re.search(rf"^{extra} = \[", text, re.MULTILINE) for extra in wanted[1].split(","))
    elif words[0] == "bash":  # tests/launch checks the launchers
        assert Path(words[1]).parts[0] == "launch"
        assert Path(words[1]).is_file()
        assert words[2:] == ["--dry-run"]
    elif words[0] == "curl":
        assert words[1:3] == ["--data-binary", "@recording.wav"]
        assert words[3].startswith("http://127.0.0.1:8000/api/tag")
    else:
        assert words[:2] == ["python", "-m"], command
        program, arguments = words[2], words[3:]
        if program == "rann_jax.main":
            return check_main(arguments)
        module = importlib.import_module(program)
        if not hasattr(module, "_parser"):
            module = importlib.import_module(f"{program}.__main__")
        _, rest = module._parser().parse_known_args(arguments)
        assert all(word.startswith("--config.") for word in rest), rest
        if "--config" in arguments:
            place = arguments.index("--config")
            read_config([*arguments[place : place + 2], *rest])
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """The folder that the tutorials call DIR; configs read it."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("dog", "rain"):
        (folder / name).mkdir()
        for i in range(5):
            soundfile.write(folder / name / f"{i}.wav", np.full(800, i / 10), 8000)
    return str(folder)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_programs_accept_the_commands(page, folder, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    found = commands(page)
    assert found
    for command in found:
        check(re.sub(r"\bDIR\b", folder, command))


def test_wrong_commands_are_noticed(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for command in (
        "python -m rann_jax.predict runs/mine file.wav --tops 3",
        "python -m rann_jax.main --config configs/folder.py --config.absent=1 --workdir W",
        "python -m rann_jax.main --config configs/folder.py --mode=score --workdir W",
        "python -m rann_jax.absent W",
    ):
        with pytest.raises((AssertionError, SystemExit, ConfigError, ValueError, ModuleNotFoundError)):
            check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_and_links_exist(page):
    text = page.read_text()
    for name in re.findall(r"`((?:rann_jax|input_pipeline)(?:\.\w+)+)`", text):
        assert resolved(name) is not None, name
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")
        for module, names in re.findall(r"^from (\S+) import (.+)$", code, re.MULTILINE):
            assert all(resolved(f"{module}.{name.strip()}") is not None for name in names.split(","))
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


def test_the_citation_matches_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert [author["name"] for author in project["authors"]] == [
        author["name"] for author in citation["authors"]
    ]
    for work in [citation, *citation["references"]]:
        assert {"title", "type", "authors"} <= work.keys()


def resolved(name: str):
    """Return the object of a dotted name."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], start=1):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[: i + 1]))
        found = getattr(found, part)
    return found


def test_readme_and_documentation_name_every_page():
    index = (REPOSITORY / "docs" / "README.md").read_text()
    for page in PAGES:
        assert page.stem == "README" or f"({page.name})" in index
    assert "docs/README.md" in (REPOSITORY / "README.md").read_text()
