"""The tutorial "Add a method": its code as it is printed is a method that trains, and that keeps the contract."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import blocks

import efsgd_jax.synthesizers
from efsgd_jax import fit, load_config, sample
from efsgd_jax.cli.release import main as publish
from efsgd_jax.config_keys import config_keys

TESTS = Path(__file__).parent
FILES = {re.match(r"# (\S+)\n", code)[1]: code.partition("\n")[2] for kind, code in blocks("add_a_method.md") if kind}
FIND = "import efsgd_jax.synthesizers\n\nefsgd_jax.synthesizers.__path__.append({!r})\n"


@pytest.fixture
def written(tmp_path):
    """The files of the page, where the package is found."""
    for name, code in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    methods = str(tmp_path / "efsgd_jax/synthesizers")
    efsgd_jax.synthesizers.__path__.append(methods)
    yield tmp_path
    efsgd_jax.synthesizers.__path__.remove(methods)
    sys.modules.pop("efsgd_jax.synthesizers.class_means", None)


def test_the_method_of_the_page_is_small():
    assert sum(len(code.splitlines()) for code in FILES.values()) < 145
    assert len(FILES["efsgd_jax/synthesizers/class_means/__init__.py"].splitlines()) < 120


def test_it_trains_draws_and_is_released(written, capsys):
    config = load_config(written / "configs/class_means.py")
    result = fit(config, written / "run", progress=False)
    assert 0.97 < result.epsilon <= 1
    assert [phase["name"] for phase in result.privacy["phases"]] == ["means"]
    images = sample(result.workdir, 20).images
    assert images.shape == (20, 8, 8, 1)
    assert images.std() > 20
    assert publish([str(result.workdir), str(written / "out.zip")]) == 0, capsys.readouterr().err
    assert {k.name for k in config_keys("class_means")} >= {"method.clip", "method.spread"}


def test_it_keeps_the_contract(written):
    test = written / "tests"
    (test / "conftest.py").write_text(
        FIND.format(str(written / "efsgd_jax/synthesizers")) + (TESTS / "conftest.py").read_text()
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(test)]
    done = subprocess.run(command, env=environment, cwd=written, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\b[89] passed", done.stdout), done.stdout[-300:]
