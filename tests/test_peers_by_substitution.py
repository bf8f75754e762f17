"""Tests that other libraries ship, run with what is ours in the place of what is theirs.

optax's of ``differentially_private_aggregate``: all, with three differences bridged by the adapter. Ours divides by a
public batch size and not by the rows that came; rows are clipped shorter by a margin for rounding; and ``init`` notes
the shapes of the parameters, whereas optax's test of noise begins with others. dp-accounting's of
``GaussianPrivacyLoss``: all.
"""

import jax
import optax
import pytest
from dp_accounting.pld import privacy_loss_mechanism

from efsgd_jax.privacy.feedback import error_feedback_aggregate
from efsgd_jax.privacy.gaussian_loss import GaussianPrivacyLoss
from efsgd_jax.privacy.rounding import margin

optax_tests = pytest.importorskip("optax.contrib._privacy_test")
accounting_tests = pytest.importorskip("dp_accounting.pld.privacy_loss_mechanism_test")


def differentially_private_aggregate(l2_norm_clip, noise_multiplier, key):
    def for_rows(updates):
        one = jax.tree.map(lambda g: jax.ShapeDtypeStruct(g.shape[1:], g.dtype), updates)
        rows = jax.tree.leaves(updates)[0].shape[0]
        clip = l2_norm_clip * (1 + margin(one, rows)) if l2_norm_clip < 1e30 else l2_norm_clip
        return error_feedback_aggregate(clip, noise_multiplier, jax.random.key(key), expected_batch_size=rows)

    def update(updates, state, params=None):
        return for_rows(updates).update(updates, state, params)

    some = error_feedback_aggregate(l2_norm_clip, noise_multiplier, jax.random.key(key), expected_batch_size=1)
    return optax.GradientTransformation(lambda params: some.init(params)._replace(like=()), update)


class TestOptax(optax_tests.DifferentiallyPrivateAggregateTest):
    @pytest.fixture(autouse=True)
    def substitute(self, monkeypatch):
        monkeypatch.setattr(optax_tests._privacy, "differentially_private_aggregate", differentially_private_aggregate)


class TestDpAccounting(accounting_tests.GaussianPrivacyLossTest):
    @pytest.fixture(autouse=True)
    def substitute(self, monkeypatch):
        monkeypatch.setattr(privacy_loss_mechanism, "GaussianPrivacyLoss", GaussianPrivacyLoss)


@pytest.mark.parametrize(("cases", "least"), [(TestOptax, 11), (TestDpAccounting, 200)])
def test_all_tests_of_the_libraries_are_collected(cases, least):
    assert sum(name.startswith("test") for name in dir(cases)) >= least
