"""A generator that left the library gives the same images where there is only JAX."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from efsgd_jax import UserError, default_config, fit
from efsgd_jax.cli.export import main as export_program
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.export import export
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir

# A process in which importing anything of ours, or Flax, would fail.
ELSEWHERE = """
import sys
for name in ("efsgd_jax", "flax", "optax", "orbax", "safetensors"):
    sys.modules[name] = None
import re
from pathlib import Path
code = re.search(r"```python\\n(.*?)```", Path("README.md").read_text(), re.S).group(1)
exec(code.replace("jnp.zeros(20, jnp.int32)", "jnp.arange(20) % 10"))
import numpy as np
np.savez("images.npz", images=images, pixels=pixels)
"""


def mixture(tmp_path):
    config = default_config("gaussian_mixture")
    config.method.update(components=2, directions=8, reranker_steps=3, candidates=2, pose_weight=8.0, deformation=0.02)
    return fit(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize("method", ["gan", pytest.param("mixture", marks=pytest.mark.slow)])
def test_images_are_the_same_in_a_process_with_jax_alone(method, finished_run, tmp_path):
    run = finished_run if method == "gan" else mixture(tmp_path)
    out = tmp_path / "exported"
    files = export(run.workdir, out, batch_size=20)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in files)
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    generator = released_generator(Workdir(run.workdir))
    key = jax.random.wrap_key_data(jnp.array([0, 1], jnp.uint32), impl="threefry2x32")
    want = jax.jit(generator.generate)(generator.params, key, jnp.arange(20) % 10)
    with np.load(out / "images.npz") as got:
        np.testing.assert_allclose(got["images"], want, atol=1e-5)
        assert got["pixels"].dtype == np.uint8
    assert float(jnp.std(want)) > 0.1

    weights = load_file(files.weights)
    leaves = jax.tree_util.tree_leaves_with_path(generator.params)
    assert len(weights) == len(leaves)
    for path, leaf in leaves:
        np.testing.assert_array_equal(weights[jax.tree_util.keystr(path, simple=True, separator=".")], leaf)
    card = json.loads(files.card.read_text())
    assert card["privacy"]["epsilon"] == run.epsilon
    assert card["classes"] == [str(i) for i in range(10)]
    assert f"({format_epsilon(run.epsilon)}, 1e-05)-differentially private" in files.usage.read_text()


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(finished_run, tmp_path, capsys):
    with pytest.raises(UserError, match="no finished run"):
        export(tmp_path, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("words")
    assert export_program([str(finished_run.workdir), str(tmp_path / "full")]) == 2
    assert "not an empty directory" in capsys.readouterr().err
    assert export_program([str(finished_run.workdir), str(tmp_path / "out"), "--batch_size=0"]) == 2
    assert not (tmp_path / "out").exists()
    assert export_program([str(finished_run.workdir), str(tmp_path / "out")]) == 0
    assert "generator.stablehlo" in capsys.readouterr().out
