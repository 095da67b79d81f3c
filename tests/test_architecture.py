"""The layers that CONTRIBUTING.md describes: no module imports a higher layer, no imports are circular."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast

OURS = ("rann_jax", "input_pipeline", "configs")
GROUND = ("rann_jax.features", "rann_jax.augment", "rann_jax.options")
# For each module or package, the modules of OURS that it may import.
FLOORS = {
    "input_pipeline": ("input_pipeline",),
    "rann_jax.features": GROUND,
    "rann_jax.augment": GROUND,
    "rann_jax.fusion": ("rann_jax.masses",),
    "rann_jax.schema": (
        "input_pipeline.sampling",
        "rann_jax.errors",
        "rann_jax.options",
        "rann_jax.tasks",
    ),
    "rann_jax.masses": ("rann_jax.tasks",),
    "rann_jax.metrics": (),
    "rann_jax.losses": (),
    "rann_jax.models": ("rann_jax.models", "rann_jax.features"),
    "rann_jax.saved.other_program": ("rann_jax.tasks",),
    "rann_jax.saved.predictions": (
        "rann_jax.errors",
        "rann_jax.saved.other_program",
        "rann_jax.tasks",
        "rann_jax.saved.workdir",
    ),
    "rann_jax.saved.read_failure": ("rann_jax.errors",),
    "rann_jax.saved.record": ("rann_jax.errors", "rann_jax.saved.read_failure", "rann_jax.saved.workdir"),
    "rann_jax.state": (),
    "rann_jax.steps": (
        *GROUND,
        "rann_jax.training.freezing",
        "rann_jax.training.gradients",
        "rann_jax.losses",
        "rann_jax.optimizer",
        "rann_jax.state",
    ),
    "rann_jax.tasks": (),
}


def modules() -> dict[str, Path]:
    """Return the file of each module, by the module's name."""
    files = [file for package in OURS for file in (REPOSITORY / package).rglob("*.py")]
    parts = {file: file.relative_to(REPOSITORY).with_suffix("").parts for file in files}
    return {".".join(part for part in of if part != "__init__"): file for file, of in parts.items()}


MODULES = modules()


def imported(statement: ast.stmt) -> Iterator[str]:
    """Yield the modules of OURS that a statement imports; `from package import module` yields the module."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names if alias.name in MODULES)
    elif isinstance(statement, ast.ImportFrom) and statement.module in MODULES:
        names = (f"{statement.module}.{alias.name}" for alias in statement.names)
        yield from (name if name in MODULES else statement.module for name in names)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("floor", FLOORS)
def test_no_higher_layer_is_imported(floor):
    on_it = [name for name in MODULES if within(name, (floor,)) and not name.endswith(".__main__")]
    assert on_it
    for name in on_it:
        for node in ast.walk(ast.parse(MODULES[name].read_text())):
            above = [other for other in imported(node) if not within(other, FLOORS[floor])]
            assert not above, f"{name} imports {above[0]}"


def test_no_module_imports_a_program():
    programs = {name for name, file in MODULES.items() if '__name__ == "__main__"' in file.read_text()}
    assert "rann_jax.main" in programs
    for name, file in MODULES.items():
        found = {other for node in ast.walk(ast.parse(file.read_text())) for other in imported(node)}
        assert not found & programs, name


def test_no_imports_are_circular():
    """Only imports at the top level of a module count; functions may import later."""
    body = {name: ast.parse(file.read_text()).body for name, file in MODULES.items()}
    graph = {name: {other for s in body[name] for other in imported(s)} for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_predictions_and_records_are_read_without_jax():
    """A program that starts runs in other processes leaves the devices to them."""
    code = "import sys, rann_jax.saved.predictions, rann_jax.saved.record; sys.exit('jax' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False, timeout=100)
    assert ended.returncode == 0
