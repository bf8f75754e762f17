"""Any configuration trains, or is refused in one line: a property of random ones, tiny but of odd values.

``pytest -n 2 tests/test_configurations.py --configurations=1000`` is the long form, in lots of a hundred.
"""

import operator
import warnings

import jax
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from efsgd_jax import default_config, fit
from efsgd_jax.config import override
from efsgd_jax.errors import UserError
from efsgd_jax.synthesizers import method_names

NUMBERS = ["0", "-1", "1", "2", "3", "7", "0.5", "-0.5", "1e-9", "1e9", "1e300", "nan", "inf", "-inf", "2147483648"]
WORDS = [
    "",
    "none",
    "true",
    "False",
    "digits",
    "npz",
    "local",
    "private",
    "hidden",
    "\u00e9",
    "efsgd_gan",
    "../x",
    "0x10",
]
SMALL = {
    "efsgd_gan": {
        "train.expected_batch_size": "16", "method.latent": "3", "method.generator_width": "2",
        "method.discriminator_width": "2", "method.encoder_width": "2", "method.max_width": "4",
        "method.features": "3", "method.generated_batch_size": "4", "method.microbatch_size": "16",
    },
    "sanitized_gan": {
        "privacy.num_shards": "4", "method.latent": "3", "method.generator_width": "2", "method.critic_width": "2",
        "method.generated_batch_size": "4", "method.warm_steps": "1",
    },
    "gaussian_mixture": {
        "method.components": "2", "method.directions": "4", "method.reranker_steps": "2",
        "method.random_frequencies": "6",
    },
    "efsgd_mixture": {
        "train.expected_batch_size": "16", "method.components": "2", "method.directions": "4",
        "method.reranker_steps": "2", "method.width": "2", "method.blocks": "1", "method.microbatch_size": "16",
    },
    "distilled_set": {
        "method.networks": "2", "method.width": "4", "method.matching_steps": "2", "method.images_per_class": "2",
    },
    "born_machine": {"train.expected_batch_size": "16", "method.bond": "2", "method.microbatch_size": "16"},
    "p3gm": {
        "train.expected_batch_size": "16", "method.components": "2", "method.directions": "4",
        "method.reranker_steps": "2", "method.width": "2", "method.blocks": "1", "method.microbatch_size": "16",
        "method.posterior_width": "3",
    },
    "pate_triple_gan": {
        "method.components": "2", "method.directions": "4", "method.reranker_steps": "2", "method.labelled": "0.5",
        "method.feature_directions": "4", "method.classifier_steps": "2", "method.width": "2", "method.blocks": "1",
        "method.critic_width": "2", "method.critic_steps": "1", "method.critic_batch_size": "4",
        "method.warm_steps": "1", "privacy.num_shards": "3", "train.trained_per_step": "2",
    },
    "pearl": {
        "method.components": "2", "method.directions": "4", "method.reranker_steps": "2", "method.frequencies": "6",
        "method.matching_steps": "2", "method.images_per_step": "4", "method.width": "2", "method.blocks": "1",
    },
    "private_diffusion": {
        "train.expected_batch_size": "16", "method.components": "2", "method.directions": "4",
        "method.reranker_steps": "2", "method.width": "2", "method.blocks": "1", "method.microbatch_size": "16",
        "method.sampling_steps": "2",
    },
}  # fmt: skip


def keys_of(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def small(method):
    config = default_config(method)
    known = set(keys_of(config))
    for key, value in SMALL[method].items():
        if key in known:
            override(config, key, value)
    if "steps" in config.train:
        config.train.steps = 2
    return config


@st.composite
def assignments(draw):
    """A method, and one to three of its keys with odd values."""
    method = draw(st.sampled_from(method_names()))
    config = small(method)
    keys = sorted(set(keys_of(config)) - {"method.name"})
    values = {}
    for key in draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True)):
        usual = operator.attrgetter(key)(config)
        values[key] = draw(st.one_of(near(usual), near(usual), odd(usual)))
    return method, values


def near(usual):
    """About what the key has."""
    if isinstance(usual, bool):
        return st.sampled_from(["true", "false"])
    if isinstance(usual, int):
        return st.integers(usual - 2, 2 * usual + 3).map(str)
    if isinstance(usual, float):
        return st.floats(0.3, 3.0).map(lambda factor: str(usual * factor))
    return st.just(str(usual).lower())


def odd(usual):
    """What it should not have; words where a number belongs, once in a while."""
    numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(-5, 70).map(str))
    return st.sampled_from(WORDS) if isinstance(usual, str) else st.one_of(numbers, numbers, st.sampled_from(WORDS))


def run(config, workdir):
    # A step's loss may be anything but what it must never be: released.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(config, workdir, progress=False)


def test_any_configuration_trains_or_says_why_not(lot, tmp_path_factory):
    number, examples = lot
    seen = {"trained": 0, "refused": 0}

    @seed(number)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(assignments())
    def trains_or_says_why(chosen):
        method, values = chosen
        workdir = tmp_path_factory.mktemp("run") / "run"
        config = small(method)
        try:
            for key, value in values.items():
                override(config, key, value)
            if "steps" in config.train:
                config.train.steps = min(config.train.steps, 2)  # many steps are no other configuration
            result = run(config, workdir)
        except UserError as error:
            message = str(error)
            assert 20 < len(message) < 1500
            assert "Traceback" not in message
            assert not (workdir / "release/generator.msgpack").exists()
            seen["refused"] += 1
        else:
            assert result.steps >= 1
            # 0 with so much noise that delta covers all that is given away.
            assert result.epsilon >= 0
            assert result.epsilon <= config.privacy.epsilon or not result.privacy["guarantee"]
            assert result.samples.stat().st_size > 0
            seen["trained"] += 1
        jax.clear_caches()

    trains_or_says_why()
    print(f"\n{seen['trained']} trained, {seen['refused']} refused")
    assert min(seen.values()) > 0
