"""DPDM's and DPImageBench's protocols: networks of the published size, their training, what stands beside scores."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efsgd_jax import load_dataset
from efsgd_jax.evaluation.metrics import (
    CLASSIFIERS,
    DEFAULT_CLASSIFIERS,
    PROTOCOLS,
    dpdm,
    dpimagebench,
    epochs,
    protocol_lines,
    utility,
)
from efsgd_jax.evaluation.metrics.epochs import TrainingOptions, train_by_epochs
from efsgd_jax.evaluation.metrics.resnet import Convolution, ResNet, ResNeXt, WideResNet


def adam(batches):
    return optax.adam(1e-2)


QUICK = TrainingOptions(epochs=3, batch_size=32, optimizer=adam, held_out=0.2)
LONGER = QUICK._replace(epochs=8)


@pytest.fixture(scope="module")
def digits():
    data = load_dataset("digits")
    return data.train_images[:200], data.train_labels[:200], data.test_images, data.test_labels


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        # As published: 1.7, 8.9, 36.5 and 34.4 million; the others by hand, layer by layer.
        (ResNet(10), (32, 32, 3), 1_730_714),
        (WideResNet(10), (32, 32, 3), 8_949_210),
        (WideResNet(10, depth=28, width=10), (32, 32, 3), 36_479_194),
        (ResNeXt(10), (32, 32, 3), 34_426_698),
        (dpdm.Cnn(10), (28, 28, 1), 320 + 18_496 + 73_856 + 1_152 * 128 + 128 + 1_290),
        (dpdm.Dense(10, (100,)), (28, 28, 1), 78_500 + 1_010),
        (dpdm.Dense(10), (28, 28, 1), 7_850),
    ],
)
def test_networks_have_the_published_number_of_parameters(model, shape, parameters):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, *shape), np.float32), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters


def test_channels_of_one_group_do_not_see_another():
    """ResNeXt's: the Jacobian of a convolution in two groups is block diagonal."""
    model, x = Convolution(6, groups=2), jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    params = model.init(jax.random.key(1), x)
    jacobian = np.abs(jax.jacobian(lambda x: model.apply(params, x).sum(axis=(0, 1, 2)))(x)).sum(axis=(1, 2, 3))
    assert (jacobian[:3, 2:] == 0).all()
    assert (jacobian[3:, :2] == 0).all()
    assert (jacobian[:3, :2] > 0).all()


@pytest.mark.slow
def test_a_residual_network_learns_200_digits(digits):
    images, labels, test_images, test_labels = digits
    trained = train_by_epochs(ResNet(10, depth=8), images, labels, LONGER)
    assert np.mean(trained.predict(test_images) == test_labels) > 0.4
    assert 1 <= trained.epoch <= LONGER.epochs
    followed = jax.tree.leaves(
        jax.tree.map(lambda x: np.all(x != 0) and np.any(x != 1), trained.variables["batch_stats"])
    )
    assert all(followed)


@pytest.mark.parametrize("classifier", ["dpdm_logistic_regression", "dpdm_mlp"])
def test_dpdm_classifiers_learn_digits(classifier):
    data = load_dataset("digits")
    train, test = (data.train_images, data.train_labels), (data.test_images, data.test_labels)
    assert utility(train, test, 10, classifier).accuracy > 0.75


def test_dpdm_cnn_learns_digits_smaller_than_its_windows(digits):
    images, labels, test_images, test_labels = digits
    trained = train_by_epochs(dpdm.Cnn(10), images, labels, LONGER)
    assert np.mean(trained.predict(test_images) == test_labels) > 0.4


def test_the_same_seed_gives_the_same_network_and_another_seed_another(digits):
    images, labels, *_ = digits
    a, b, c = (train_by_epochs(dpdm.Dense(10, (9,)), images, labels, QUICK, seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
    different = jax.tree.map(lambda x, y: np.any(x != y), a.variables["params"], c.variables["params"])
    assert different["Dense_0"]["kernel"]


def frozen(batches):
    return optax.set_to_zero()


def growing(batches):
    """Every step adds 1 to every weight."""
    return optax.stateless(lambda updates, params: jax.tree.map(jnp.ones_like, params))


def test_the_average_of_the_weights_lags_behind_as_published(digits):
    """After n steps the decay is min(0.9999, (1 + n) / (10 + n)); the weights here are w + n."""
    images, labels, *_ = digits
    training = TrainingOptions(epochs=1, batch_size=20, optimizer=growing, held_out=0.1, ema_decay=0.9999)
    model = dpdm.Dense(10)
    averaged = train_by_epochs(model, images, labels, training).variables["params"]["Dense_0"]
    start = train_by_epochs(model, images, labels, training._replace(optimizer=frozen)).variables["params"]["Dense_0"]
    lag = 0.0
    for n in range(1, 10):  # 180 images in batches of 20
        lag += (1 - (1 + n) / (10 + n)) * (n - lag)
    np.testing.assert_allclose(averaged["kernel"] - start["kernel"], lag, rtol=1e-4)
    plain = train_by_epochs(model, images, labels, training._replace(ema_decay=0.0)).variables["params"]["Dense_0"]
    np.testing.assert_allclose(plain["kernel"] - start["kernel"], 9.0, rtol=1e-4)


def test_held_out_images_choose_the_epoch_and_are_not_trained_on(digits, monkeypatch):
    images, labels, *_ = digits
    seen, step = [], epochs._compiled_step()

    def watched(*arguments):
        seen.append(np.asarray(arguments[6]))
        return step(*arguments)

    monkeypatch.setattr(epochs, "_compiled_step", lambda: watched)
    trained = train_by_epochs(dpdm.Dense(10), images, labels, QUICK._replace(batch_size=40))
    rows = [np.sort(np.concatenate(seen[i : i + 4])) for i in (0, 4, 8)]
    assert len(seen) == 12
    np.testing.assert_array_equal(rows[0], rows[2])
    assert len(np.unique(rows[0])) == 160
    assert (seen[0] != seen[4]).any()
    held_out = np.setdiff1d(np.arange(200), rows[0])
    right = trained.predict(images[held_out]) == labels[held_out]
    assert trained.held_out_accuracy == pytest.approx(np.mean(right))


@pytest.mark.parametrize(("latest", "epoch"), [(False, 1), (True, 3)])
def test_of_equally_good_epochs_the_first_or_the_last_is_kept(latest, epoch, digits):
    images, labels, *_ = digits
    training = QUICK._replace(optimizer=frozen, latest=latest)
    assert train_by_epochs(dpdm.Dense(10), images, labels, training).epoch == epoch


def test_batch_sizes_epochs_and_learning_rates_are_the_published_ones():
    assert dpdm.OPTIONS[:2] == (50, 128)
    assert dpimagebench.OPTIONS[:2] == (50, 256)
    assert 60_000 - round(60_000 * dpimagebench.OPTIONS.held_out) == 55_000
    params = {"w": np.zeros(1, np.float32)}
    optimizer = dpimagebench.OPTIONS.optimizer(1)  # an epoch is one step
    state, sizes = optimizer.init(params), []
    for _ in range(41):
        updates, state = optimizer.update({"w": np.ones(1, np.float32)}, state, params)
        sizes.append(float(-updates["w"][0]))
    assert sizes[19] == pytest.approx(0.01, rel=1e-3)
    assert sizes[20] == pytest.approx(0.002, rel=1e-3)
    assert sizes[40] == pytest.approx(0.0004, rel=1e-3)


def test_protocols_name_classifiers_that_exist_and_are_not_the_default():
    for protocol in PROTOCOLS.values():
        assert set(protocol.classifiers) <= set(CLASSIFIERS)
    assert not set(PROTOCOLS["dpdm"].classifiers + PROTOCOLS["dpimagebench"].classifiers) & set(DEFAULT_CLASSIFIERS)
    assert [name for name, p in PROTOCOLS.items() if p.real2gen] == ["dpac"]


def test_a_delta_that_is_not_the_protocols_is_said():
    bench = PROTOCOLS["dpimagebench"]
    lines = protocol_lines(bench, 1e-5, 60_000, 60_000)
    assert lines[-1] == "delta 1e-05; the protocol's is 1/(N ln N) = 1.5e-06: do not compare epsilons directly"
    for delta in (1 / (60_000 * np.log(60_000)), None):
        assert not any("delta" in line for line in protocol_lines(bench, delta, 60_000, 60_000))
    assert any("protocol's is 1e-05" in line for line in protocol_lines(PROTOCOLS["dpdm"], 1e-6, 60_000, 60_000))
    assert not any("delta" in line for line in protocol_lines(PROTOCOLS["dpac"], 1e-5, 60_000, 60_000))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_source_selection_and_deviations_are_said(name):
    protocol = PROTOCOLS[name]
    lines = protocol_lines(protocol, None, 60_000, protocol.num_images)
    assert protocol.paper in lines[0]
    assert "after its last step" in lines[1]
    of_file = protocol_lines(protocol, None, 60_000, protocol.num_images, of_run=False)
    assert "the generator after" not in of_file[1]
    assert "whatever generator made them" in of_file[1]
    assert sum(line.startswith("differs: ") for line in lines) == len(protocol.deviations) > 0
    assert not any("NOT" in line for line in lines)
    assert any("NOT the protocol's 60000" in line for line in protocol_lines(protocol, None, 60_000, 10_000))
