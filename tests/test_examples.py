"""Examples in docstrings are run as they stand, beside a finished run in ``runs/digits``."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import efsgd_jax
from efsgd_jax import privacy

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "efsgd_jax").rglob("*.py")
    if ">>> " in file.read_text()
)
# Types that functions return, a protocol, an error; and what a page of the documentation shows at length.
WITHOUT = {
    "ClippedSum", "Comparison", "Dataset", "ErrorFeedbackState", "FitResult", "Mechanism", "ReleasedScore", "Samples",
    "Scores", "UndeclaredReleaseError", "UserError", "clipping_plan", "compare", "evaluate_samples", "outer_clip",
    "release_score", "unit_lengths",
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run_as_printed(name, finished_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(finished_run.workdir)
    monkeypatch.chdir(tmp_path)
    module, runner = importlib.import_module(name), doctest.DocTestRunner()
    # Not by testmod, which leaves decorated functions out.
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            text = ast.get_docstring(node) or ""
            runner.run(doctest.DocTestParser().get_doctest(text, dict(vars(module)), node.name, name, node.lineno))
    assert runner.tries > 0
    assert runner.failures == 0


def test_public_functions_have_an_example():
    public = {n: getattr(owner, n) for owner in (efsgd_jax, privacy) for n in owner.__all__}
    missing = {n for n, value in public.items() if "Examples:" not in (inspect.getdoc(value) or "")}
    assert missing == WITHOUT
