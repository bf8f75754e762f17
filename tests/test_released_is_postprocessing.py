"""What is released is post-processing: with the mechanism's outputs replaced by zeros, it is the same for all data.

Two private data sets of one shape, the same keys, and every bit of what is ever released must be the same. The state as
a whole differs: shards' own networks and metrics read raw images.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.data import ImageSpec
from efsgd_jax.privacy import DpSgdMechanism, FullBatchMechanism
from efsgd_jax.synthesizers.efsgd_gan import method as efsgd_gan
from efsgd_jax.synthesizers.gaussian_mixture import method as gaussian_mixture
from efsgd_jax.synthesizers.sanitized_gan import method as sanitized_gan
from efsgd_jax.synthesizers.sanitized_gan import options as shard_options
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

SPEC, N, STEPS = ImageSpec(8, 1, 3), 24, 2
CLIP = {"discriminator": 0.7, "encoder": 0.5, "generator": 1.0}
GAN = efsgd_gan.Hyperparameters(latent=4, generator_width=4, discriminator_width=4, encoder_width=4, max_width=8,
                                features=8, generated_batch_size=8, microbatch_size=8)  # fmt: skip
SHARD = shard_options.Hyperparameters(latent=3, generator_width=4, max_width=4, critic_width=4, critic_steps=1,
                                      critic_batch_size=4, warm_steps=1)  # fmt: skip
MIXTURE = gaussian_mixture.Hyperparameters(components=2, directions=4, cluster_steps=1, candidates=2, reranker_steps=3)


def gan(feedback, **options):
    mechanism = DpSgdMechanism(N, 0.5, N, 1.3, CLIP, feedback=feedback, **options)
    return efsgd_gan.efsgd_gan(SPEC, GAN, mechanism)


def sanitized(schedule, **options):
    mechanism = ShardMechanism(N, 3, schedule, 1.07, images_per_step=4, **options)
    assert mechanism.proven
    return sanitized_gan.sanitized_gan(SPEC, SHARD, mechanism)


METHODS = {
    "efsgd_gan, none": (lambda: gan("none"), "ema"),
    "efsgd_gan, hidden": (lambda: gan("hidden", feedback_l2_norm_clip=0.5), "ema"),
    "efsgd_gan, local": (lambda: gan("local", feedback_l2_norm_clip=2.0), "ema"),
    "efsgd_gan, private": (lambda: gan("private", feedback_l2_norm_clip=2.0), "ema"),
    "sanitized_gan, round robin": (
        lambda: sanitized("round_robin", feedback="local", feedback_l2_norm_clip=2.0, feedback_decay=0.5),
        "ema",
    ),
    "sanitized_gan, independent": (lambda: sanitized("independent"), "ema"),
    "sanitized_gan, parameter": (lambda: sanitized("parameter", judges_per_step=2), "ema"),
    "gaussian_mixture": (
        lambda: gaussian_mixture.gaussian_mixture(SPEC, MIXTURE, FullBatchMechanism(N, 1.3)),
        "params",
    ),
}


def data_set(seed):
    rng = np.random.default_rng(seed)
    low, high = (0, 128) if seed else (128, 256)  # brighter images, and other labels
    images = rng.integers(low, high, (N, *SPEC.shape), dtype=np.uint8)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, 3, N))


@pytest.fixture
def mechanism_says_nothing(monkeypatch):
    """Every release is zero, whatever it is of: the transform's two channels, and a ``Release``'s sums."""
    monkeypatch.setattr(
        "efsgd_jax.privacy.feedback.add_noise", lambda tree, std, moved, key: jax.tree.map(jnp.zeros_like, tree)
    )
    monkeypatch.setattr(
        "efsgd_jax.privacy.one_shot.Release._noised",
        lambda self, total, unit, count, bits, *, symmetric=False: jnp.zeros(total.low.shape),
    )


def programs(method):
    """``init``, ``batch``, ``step`` and ``warm_up``, compiled now: with the mechanism that there is now."""
    return [jax.jit(f) if f else None for f in (method.init, method.batch, method.step, method.warm_up)]


def run(method, compiled, data):
    """What is released after each step, what was drawn, the last state and the last batch."""
    init, batch_of, step, warm_up = compiled
    init_key, data_key, batch_key = jax.random.split(jax.random.key(5), 3)
    arranged = method.arrange(data_key, *data)
    state = init(init_key)
    if warm_up:
        state = warm_up(state, data_key, arranged)
    released, draws = [], []
    for t in range(STEPS):
        batch = batch_of(batch_key, jnp.array(t), arranged)
        draws.append([getattr(batch, name) for name in DRAWN if hasattr(batch, name)])
        state, _ = step(state, batch)
        released.append(jax.device_get(method.released(state)))
    return released, draws, state, batch


# What says which records take part, and when.
DRAWN = ("mask", "rows", "training", "nonempty", "judges", "judged_nonempty")


def same(a, b):
    """Bitwise: NaN of the same bits is the same."""
    a, b = ([np.asarray(x) for x in jax.tree.leaves(tree)] for tree in (a, b))
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


ONE_OF_EACH = ("efsgd_gan, private", "sanitized_gan, parameter", "gaussian_mixture")


@pytest.mark.usefixtures("mechanism_says_nothing")
@pytest.mark.parametrize("name", [pytest.param(m, marks=[pytest.mark.slow] * (m not in ONE_OF_EACH)) for m in METHODS])
def test_what_is_released_is_the_same_for_all_data(name):
    make, field = METHODS[name]
    method = make()
    compiled = programs(method)
    one, other = (run(method, compiled, data_set(i)) for i in (0, 1))
    assert same(one[0], other[0])
    assert same(one[1], other[1])
    assert all(one[1])
    if "sanitized" in name:
        assert not same(one[2].members, other[2].members)  # shards did train on their images

    def leaking(released, draws, state, batch):
        """A step that puts a little of the batch's mean into what is released."""
        images = batch.real.pixels if hasattr(batch, "real") else batch.images
        mean = jnp.mean(images.astype(jnp.float32))
        leaked = jax.tree.map(lambda x: x + 1e-3 * mean, getattr(state, field))
        return jax.device_get(method.released(state._replace(**{field: leaked})))

    assert not same(leaking(*one), leaking(*other))


def test_with_the_mechanism_it_is_not():
    """The comparison above is of something: what is released otherwise is of the data, with the same noise."""
    method = METHODS["gaussian_mixture"][0]()
    compiled = programs(method)
    one, other = (run(method, compiled, data_set(i)) for i in (0, 1))
    assert not same(one[0], other[0])
    assert same(one[1], other[1])
