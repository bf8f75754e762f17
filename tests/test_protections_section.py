"""The section of a run's page on protections other than differential privacy of images."""

import shutil

import pytest

from efsgd_jax import report
from efsgd_jax.files import read_json, write_json
from efsgd_jax.protect.output import mark_directory
from efsgd_jax.reports.protections import protections_section


def sentences(config):
    return protections_section(config).data["sentences"]


def test_a_run_without_another_protection_has_no_section():
    assert protections_section({"data": {"path": ""}, "privacy": {"region": ""}, "method": {}}) is None
    assert protections_section({"method": {"guidance_threshold": 0.0}}) is None


@pytest.mark.parametrize("place", ["", "png", "samples.npz"])
def test_images_that_were_protected_are_named_with_what_epsilon_is_for(tmp_path, place):
    mark_directory(tmp_path / "moved", "confound")
    (said,) = sentences({"data": {"path": str(tmp_path / "moved" / place)}})
    assert "efsgd protect confound" in said
    assert "no differential privacy" in said
    (said,) = sentences({"public": {"path": str(tmp_path / "moved" / place)}})
    assert "public here all the same" in said


def test_a_region_and_guidance_are_named():
    said = sentences({"privacy": {"region": "9,9,14,14"}, "method": {"guidance_threshold": 0.5}})
    assert "9,9,14,14" in said[0]
    assert "neither images nor persons" in said[0]
    assert "neither the generator nor epsilon" in said[1]


def test_the_page_of_a_run_shows_the_section(finished_run, tmp_path):
    shutil.copytree(finished_run.workdir, tmp_path / "run")
    mark_directory(tmp_path / "moved", "confound")
    recorded = tmp_path / "run/private/run.json"
    content = read_json(recorded)
    content["config"]["data"]["path"] = str(tmp_path / "moved")
    write_json(recorded, content)
    page = report(tmp_path / "run").read_text()
    assert "Other protections" in page
    assert "efsgd protect confound" in page
    assert "Other protections" not in report(tmp_path / "run", release=True).read_text()
