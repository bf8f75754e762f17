"""The package's structure: data flows one way, nothing imports itself, files stay short, and no name is taken twice."""

import sys
from pathlib import Path

import efsgd_jax

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import structure  # noqa: E402


def test_no_import_runs_up_and_none_in_a_circle():
    graph = structure.imports(structure.modules())
    assert structure.upward(graph) == []
    assert structure.cycles(graph) == []


def test_an_import_that_runs_up_is_seen():
    graph = {"efsgd_jax.privacy.a": {"efsgd_jax.runs.b"}, "efsgd_jax.runs.b": {"efsgd_jax.privacy.a"}}
    assert structure.upward(graph) == ["efsgd_jax.privacy.a imports efsgd_jax.runs.b"]
    assert structure.cycles(graph) == ["efsgd_jax.privacy.a", "efsgd_jax.runs.b"]


def test_files_are_short():
    sizes = {name: len(file.read_text().splitlines()) for name, file in structure.modules().items()}
    assert {name: size for name, size in sizes.items() if size > structure.LONGEST} == {}


def test_no_module_has_the_name_of_a_public_function():
    modules = {file.stem for file in (ROOT / "efsgd_jax").glob("*.py")} | {
        folder.name for folder in (ROOT / "efsgd_jax").iterdir() if folder.is_dir()
    }
    assert modules & set(efsgd_jax.__all__) == set()


def test_every_package_is_in_the_wheel():
    listed = (ROOT / "pyproject.toml").read_text()
    for file in (ROOT / "efsgd_jax").rglob("__init__.py"):
        name = ".".join(file.parent.relative_to(ROOT).parts)
        assert f'"{name}"' in listed, name
