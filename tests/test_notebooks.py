"""The notebooks run from top to bottom, small, and say what they should."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# What is put in the place of the parameters cell's values.
SMALL = {
    "colab_gpu": """
        DATA, CLASSIFIERS, RUN = "digits", ("logistic_regression",), "run"
        METHOD = dict(components=2, directions=20, pose_weight=0.0, contrast=1.0, deformation=0.0)
    """,
    "colab_tpu": """
        DATA, RUN = "digits", "run"
        TRAIN = dict(steps=6, expected_batch_size=32, log_every=2, grid_every=4)
        METHOD = dict(latent=4, generator_width=4, discriminator_width=4, encoder_width=4, max_width=8, features=8,
                      generated_batch_size=8, microbatch_size=16)
    """,
    "your_images": "RUN = 'run'",
    "your_own_loop": "STEPS = 150",
}


def run(name, directory, **environment):
    """Executes a notebook and returns all that its cells printed."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    places = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    assert len(places) == 1
    small = nbformat.v4.new_code_cell("\n".join(line.strip() for line in SMALL[name].splitlines()))
    notebook.cells.insert(places[0] + 1, small)
    # XLA's own defaults: elsewhere, the tests ask the compiler for fewer optimisations.
    kernel_environment = {**os.environ, "XLA_FLAGS": "", **environment}
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(directory)}})
    with client.setup_kernel(env=kernel_environment):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert all(out.output_type != "error" for out in outputs)
    pictures = sum("image/png" in out.get("data", {}) for out in outputs)
    return "".join(out.get("text", "") for out in outputs), pictures


def number(text, pattern):
    return float(re.search(pattern, text).group(1))


def test_notebooks_are_committed_without_outputs():
    assert sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")) == sorted(SMALL)
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.slow
def test_the_quick_start_trains_scores_and_packs(tmp_path):
    text, pictures = run("colab_gpu", tmp_path)
    assert 9.9 < number(text, r"epsilon ([\d.]+) at delta") <= 10
    assert number(text, r"gen2real logistic_regression ([\d.]+)") > 0.75
    assert pictures == 1
    assert (tmp_path / "run.zip").is_file()


@pytest.mark.slow
def test_the_tpu_notebook_trains_on_two_devices(tmp_path):
    text, pictures = run(
        "colab_tpu", tmp_path, XLA_FLAGS=f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    )
    assert number(text, r"after 6 steps on (\d)") == 2
    assert 9 < number(text, r"epsilon ([\d.]+) at delta") <= 10
    assert number(text, r"'steps': (\d+)") == 6
    assert pictures == 2


@pytest.mark.slow
def test_the_notebook_of_your_images_trains_and_exports(tmp_path):
    text, pictures = run("your_images", tmp_path)
    assert number(text, r"(\d+) to train on") + number(text, r"(\d+) held out") == 1797
    assert "UserWarning" not in text
    assert 5 < number(text, r"epsilon ([\d.]+) in all") <= 5.5
    assert number(text, r"accuracy ([\d.]+)") > 0.6
    assert pictures == 1
    assert (tmp_path / "run_exported/generator.stablehlo").is_file()


def test_the_notebook_of_your_own_loop_learns_and_refuses_misuse(tmp_path):
    text, _ = run("your_own_loop", tmp_path)
    assert number(text, r"accuracy ([\d.]+)") > 0.75
    assert 2.5 < number(text, r"epsilon ([\d.]+) at delta") <= 3
    assert text.count("refused:") == 2
