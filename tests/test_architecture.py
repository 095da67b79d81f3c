"""The floors of the house, as CONTRIBUTING.md has them: no import upward, and none in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast

OURS = ("rann_jax", "input_pipeline", "configs")
GROUND = ("rann_jax.features", "rann_jax.augment", "rann_jax.options")
# What may be imported of OURS by a module, or by those in a package.
FLOORS = {
    "input_pipeline": ("input_pipeline",),
    "rann_jax.features": GROUND,
    "rann_jax.augment": GROUND,
    "rann_jax.fusion": (),
    "rann_jax.metrics": (),
    "rann_jax.losses": (),
    "rann_jax.models": ("rann_jax.models", "rann_jax.features"),
    "rann_jax.state": (),
    "rann_jax.steps": (
        *GROUND,
        "rann_jax.freezing",
        "rann_jax.gradients",
        "rann_jax.losses",
        "rann_jax.optimizer",
        "rann_jax.state",
    ),
}


def modules() -> dict[str, Path]:
    """Files by the names of their modules."""
    files = [file for package in OURS for file in (REPOSITORY / package).rglob("*.py")]
    parts = {file: file.relative_to(REPOSITORY).with_suffix("").parts for file in files}
    return {".".join(part for part in of if part != "__init__"): file for file, of in parts.items()}


MODULES = modules()


def imported(statement: ast.stmt) -> Iterator[str]:
    """Modules of OURS that a statement imports; of `from package import name`, the module of that name."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names if alias.name in MODULES)
    elif isinstance(statement, ast.ImportFrom) and statement.module in MODULES:
        names = (f"{statement.module}.{alias.name}" for alias in statement.names)
        yield from (name if name in MODULES else statement.module for name in names)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("floor", FLOORS)
def test_nothing_is_imported_from_above(floor):
    on_it = [name for name in MODULES if within(name, (floor,)) and not name.endswith(".__main__")]
    assert on_it
    for name in on_it:
        for node in ast.walk(ast.parse(MODULES[name].read_text())):
            above = [other for other in imported(node) if not within(other, FLOORS[floor])]
            assert not above, f"{name} imports {above[0]}"


def test_no_import_leads_back():
    """Of what is imported with a module; functions may import later."""
    body = {name: ast.parse(file.read_text()).body for name, file in MODULES.items()}
    graph = {name: {other for s in body[name] for other in imported(s)} for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)
