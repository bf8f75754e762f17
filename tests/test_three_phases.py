"""A full-batch release, post-processing and DP-SGD in one run: stopped in each phase, and charged for both budgets."""

import sys
from pathlib import Path

import pytest
from contract import SynthesizerContract, data_set

import efsgd_jax.synthesizers
from efsgd_jax.training.setup import bind

METHODS = str(Path(__file__).parent / "methods")


@pytest.fixture(scope="module", autouse=True)
def found():
    """The method is a package beside those of the project."""
    efsgd_jax.synthesizers.__path__.append(METHODS)
    yield
    efsgd_jax.synthesizers.__path__.remove(METHODS)
    sys.modules.pop("efsgd_jax.synthesizers.three_phases", None)


class TestThreePhases(SynthesizerContract):
    method = "three_phases"

    def test_each_budget_is_spent_when_its_phases_end(self, config):
        ledger = bind(config, data_set(0)).ledger
        target, share = config.privacy.epsilon, config.method.share
        assert 0.97 * share * target < ledger.spent(2) <= share * target
        assert 0.97 * target < ledger.spent(6) <= target
        assert ledger.steps == 6
        assert ledger.blocks(100, 0, [2, 6]) == [(2, ledger.spent(2)), (6, ledger.spent(6))]
