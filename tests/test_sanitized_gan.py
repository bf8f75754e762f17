"""The published family: the stack of members, what a changed shard can change, and runs on disk."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from efsgd_jax import UserError, default_config, evaluate, fit, load_dataset, sample
from efsgd_jax.cli.release import main as publish
from efsgd_jax.cli.train import main as train
from efsgd_jax.data import ImageSpec, to_uint8
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.privacy.feedback import ErrorFeedbackState
from efsgd_jax.privacy.mechanism import REPLACE
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.sanitized_gan.access import Private
from efsgd_jax.synthesizers.sanitized_gan.generator_inputs import make_inputs
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.members import over_members, put, take
from efsgd_jax.synthesizers.sanitized_gan.method import make_generate, phases
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.published_accounting import SanitizedGan
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, make_shard, pixels_of
from efsgd_jax.training import memory
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.update import Inputs, make_update

SPEC = ImageSpec(8, 1, 3)
HP = Hyperparameters(latent=3, generator_width=4, max_width=4, critic_width=4, critic_steps=1, critic_batch_size=4,
                     classifier_from=0, classifier_generated_steps=1, classifier_real_steps=1)  # fmt: skip
EVERYTHING = Hyperparameters(**{**vars(HP), "classifier_weight": 0.2, "reconstruction_weight": 0.02})


class Recording(ShardMechanism):
    """The same mechanism; the residual that its transform keeps is what it released."""

    def transform(self, key):
        inner = super().transform(key)

        def init(params):
            return ErrorFeedbackState(key, params)

        def update(updates, state, params=None, **extra):
            clean, new = inner.update(updates, ErrorFeedbackState(state.rng_key, ()), params)
            return clean, new._replace(residual=clean)

        return optax.GradientTransformationExtraArgs(init, update)


def arrays(seed, n, size=8):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, 256, (n, size, size, 1), dtype=np.uint8)), jnp.asarray(rng.integers(0, 3, n))


def images(key, *shape):
    return Images(jax.random.uniform(key, (*shape, 8, 8, 1), minval=-1), jax.random.randint(key, shape, 0, 3))


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
def test_a_step_over_the_stack_is_a_loop_over_its_members(batched):
    shard = make_shard(SPEC, EVERYTHING, lambda params, z, labels, key: jnp.zeros((z.shape[0], 8, 8, 1)) + params, 0)
    k = 100
    keys = jax.random.split(jax.random.key(0), k)
    stack = jax.vmap(shard.init)(keys)
    real, fake = (
        images(jax.random.key(1), k, shard.examples),
        images(jax.random.key(2), k, shard.paired + shard.unpaired),
    )
    generator, step = jnp.array(0.3), jnp.array(5)

    def one(member, real, fake, key):
        return shard.train(member, generator, real, fake, step, key)

    together, metrics = jax.jit(lambda *xs: over_members(one, *xs, batched=batched))(stack, real, fake, keys)
    alone = jax.jit(lambda i, *xs: one(*take(xs, i)))
    loop = [jax.device_get(alone(i, stack, real, fake, keys)) for i in range(k)]
    members, its_metrics = jax.tree.map(lambda *xs: np.stack(xs), *loop)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), together, members)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), metrics, its_metrics)
    assert all(np.abs(np.diff(x, axis=0)).max() > 0 for x in jax.tree.leaves(together.critic) if x.ndim > 2)


def test_put_writes_the_rows_that_are_kept():
    stack = {"x": jnp.zeros((5, 2))}
    got = put(stack, jnp.array([3, 1]), {"x": jnp.ones((2, 2))}, jnp.array([True, False]))
    np.testing.assert_array_equal(got["x"][:, 0], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(take(got, jnp.array([3, 3]))["x"], 1.0)


def changed_members(before, after):
    moved = [np.abs(np.asarray(a) - np.asarray(b)).reshape(len(a), -1).max(1) > 0
             for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]  # fmt: skip
    return set(np.flatnonzero(np.any(moved, axis=0)).tolist())


CLIP, SIGMA, B, M = 0.3, 1.5, 12, 2


def phase_of(hp, mechanism, spec=SPEC):
    (phase,) = phases(spec, hp, [PlannedPhase("training", mechanism, 10)])
    return phase


@functools.cache
def compiled(schedule):
    """The method with three shards, of which two train in a turn where there is a turn: its data, a state, its step."""
    mechanism = Recording(40, 3, schedule, SIGMA, CLIP, images_per_step=B, judges_per_step=M, trained_per_step=2)
    phase = phase_of(HP, mechanism)
    data = mechanism.arrange(jax.random.key(1), Record(*arrays(0, 40)))

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def step(state, data, seed, t):
        access = mechanism.open(data, jax.random.key(seed), t)
        state, _ = phase.step(state, access, jax.random.key(0))
        return state, access._turn

    return data, phase.init(jax.random.key(0), {}), step


def without_training(data):
    return data._replace(shards=data.shards._replace(sizes=jnp.zeros_like(data.shards.sizes)))


SCHEDULES = [*(pytest.param(s, marks=pytest.mark.slow) for s in ("published", "independent")), "parameter"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_members_change_only_when_scheduled(schedule):
    data, state, step = compiled(schedule)
    for t in range(4):
        new, turn = step(state, data, t, t)
        assert changed_members(state.members, new.members) == set(turn.training.tolist())
        state = new
    assert int(state.step) == 4


def adversaries(stack, seed, scale):
    """Critics of two worlds: the same but for shard 0, whose scores are turned around and scaled."""
    rng = np.random.default_rng(seed)

    def other(x):
        turned = -x[0] if rng.random() < 0.7 else jnp.asarray(rng.normal(size=x[0].shape), x.dtype)
        return x.at[0].set(turned)

    one = jax.tree.map(lambda x: scale * x, stack.critic)
    head = {k: v for k, v in one["params"].items() if k != "StridedTrunk_0"}
    return stack._replace(critic=one), stack._replace(critic={"params": {**one["params"], **jax.tree.map(other, head)}})


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_changed_shard_moves_a_release_by_at_most_what_the_event_says(schedule):
    data, state, step = compiled(schedule)
    data = without_training(data)  # the adversary chose the networks
    most, parts = 0.0, M if schedule == "parameter" else B
    for seed in range(12):
        worlds = adversaries(state.members._value, seed, 10.0 ** (seed % 4 - 1))
        # Both have the same noise, so that the difference is the changed shard's.
        (a, turn), (c, _) = (step(state._replace(members=Private(w)), data, seed, 0) for w in worlds)
        difference = jax.tree.map(lambda x, y: parts * (x - y), a.residual, c.residual)
        if schedule == "parameter":
            norms = np.array([float(optax.tree.norm(difference))])
            asked = np.array([bool(jnp.any(turn.scoring == 0))])
        else:
            norms = np.linalg.norm(np.asarray(difference).reshape(B, -1), axis=1)
            asked = np.repeat(np.asarray(turn.scoring) == 0, B // len(turn.scoring))
        assert np.all(norms[~asked] < 1e-5)
        assert np.all(norms <= 2 * CLIP * (1 + 1e-4))
        most = max(most, norms.max())
    assert most > 0.98 * 2 * CLIP  # the search found the worst


def test_noise_of_a_step_has_the_mechanisms_std_and_differs_per_image():
    data, state, step = compiled("independent")
    state = state._replace(members=jax.tree.map(jnp.zeros_like, state.members))  # critics that say nothing
    noise = np.concatenate(
        [B * np.asarray(step(state, without_training(data), t, 0)[0].residual).reshape(B, -1) for t in range(4)]
    )
    n = noise.size
    assert noise.std() == pytest.approx(2 * CLIP * SIGMA, rel=4 / np.sqrt(2 * n))
    assert np.abs(np.corrcoef(noise) - np.eye(4 * B)).max() < 0.65  # of 64 pixels: 5 / sqrt(64)


@pytest.mark.slow
def test_reconstruction_from_the_prior_takes_images_of_the_label():
    hp = Hyperparameters(**{**vars(EVERYTHING), "reconstruction_from": "prior", "candidates": 6})
    shard = make_shard(SPEC, hp, lambda *a: None, 0)
    inputs = make_inputs(SPEC, hp, shard, 5, fixed_labels=False)
    member = shard.init(jax.random.key(0))
    real = Record(*arrays(3, inputs.examples))
    key = jax.random.key(4)
    assert not bool(inputs.draw(0, member, real, jnp.array(False), key).has_target.any())
    got, pixels = inputs.draw(0, member, real, jnp.array(True), key), pixels_of(real).pixels
    codes = np.asarray(shard.encode(member, pixels, jax.random.split(key)[1]))
    for n in range(5):
        same = np.asarray(real.label == got.labels[n])
        assert bool(got.has_target[n]) == same.any()
        if same.any():
            found = [i for i in np.flatnonzero(same) if np.array_equal(pixels[i], got.targets[n])]
            distances = np.sum((codes - np.asarray(got.z[n])) ** 2, axis=1)
            assert found
            assert distances[found[0]] == pytest.approx(distances[same].min())


@pytest.mark.slow
def test_without_noise_it_learns_the_digits():
    data = load_dataset("digits")
    hp = Hyperparameters(latent=6, generator_width=16, max_width=32, critic_width=8, critic_steps=3,
                         critic_batch_size=32, generator_learning_rate=2e-3, critic_learning_rate=2e-3,
                         ema_decay=0.97)  # fmt: skip
    mechanism = ShardMechanism(len(data.train_labels), 2, "independent", 0.0, images_per_step=32)
    phase = phase_of(hp, mechanism, data.spec)
    everything = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
    inputs = Inputs(jax.random.key(1), jax.random.key(2), mechanism.arrange(jax.random.key(3), everything), {})
    update, state = make_update(phase), jax.jit(phase.init)(jax.random.key(0), {})
    for t in range(400):
        state, _ = update(state, jnp.int32(t), inputs)
    labels = np.arange(1000) % 10
    generate = jax.jit(make_generate(data.spec, hp))
    drawn = to_uint8(np.asarray(generate(phase.release(state), jax.random.key(2), jnp.asarray(labels))))
    model = LogisticRegression(max_iter=200).fit(drawn.reshape(1000, -1) / 255.0, labels)
    assert model.score(data.test_images.reshape(-1, 64) / 255.0, data.test_labels) > 0.6


def small(**privacy):
    config = default_config("sanitized_gan")
    config.privacy.update(num_shards=5, **privacy)
    config.train.update(steps=4, images_per_step=4, log_every=2, grid_every=2)
    config.method.update(latent=3, generator_width=4, max_width=4, critic_width=4, critic_steps=1, critic_batch_size=4,
                         warm_steps=1, classifier_from=0)  # fmt: skip
    return config


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory):
    config = small()
    config.method.update(classifier_weight=0.2, reconstruction_weight=0.02, reconstruction_from="prior",
                         noise_injection=True)  # fmt: skip
    config.privacy.update(feedback="private", feedback_l2_norm_clip=2.0)
    return fit(config, tmp_path_factory.mktemp("sound") / "run", progress=False)


def test_a_sound_run_is_released_with_three_accountings(sound_run, tmp_path, capsys):
    report = sound_run.privacy
    assert report["guarantee"]
    assert 9.8 < report["epsilon"] == report["accountings"]["proven"] <= 10
    form = SanitizedGan(5, 4, 4, report["phases"][0]["mechanism_parameters"]["noise_multiplier"])
    assert report["accountings"]["as_published"] == pytest.approx(form.as_published(1e-5))
    assert report["neighbouring_relation"] == REPLACE
    text = (sound_run.workdir / "release/PRIVACY.md").read_text()
    assert all(
        f"epsilon {name}" in text
        for name in ("as papers of this family account", "proven for the schedule", "if a step")
    )
    assert publish([str(sound_run.workdir), str(tmp_path / "out.zip")]) == 0
    assert sample(sound_run.workdir, 10).images.shape == (10, 8, 8, 1)
    assert evaluate(sound_run.workdir, num_images=50, metrics=("utility",), classifiers=("mlp",)).gen2real


def test_a_report_that_understates_is_refused(sound_run, tmp_path, capsys):
    run = shutil.copytree(sound_run.workdir, tmp_path / "run")
    path = run / "release/privacy.json"
    report = json.loads(path.read_text())
    report["epsilon"] = 5.0
    path.write_text(json.dumps(report))
    assert publish([str(run), str(tmp_path / "out.zip")]) == 2
    assert "its mechanism spends" in capsys.readouterr().err


def test_an_unproven_run_says_so_first_and_is_never_packed(tmp_path, capsys):
    config = small(schedule="published", noise_multiplier=1.07, allow_unproven=True)
    config.privacy.update(feedback="hidden", feedback_l2_norm_clip=1.0)
    result = fit(config, tmp_path / "run", progress=False)
    assert not result.privacy["guarantee"]
    first = (result.workdir / "release/PRIVACY.md").read_text().splitlines()[0]
    assert first.startswith("# NOT PRIVATE: the schedule is the published code's")
    assert result.privacy["accountings"]["as_published"] < 10 < 40 < result.epsilon
    assert publish([str(result.workdir), str(tmp_path / "out.zip")]) == 2
    assert "no guarantee" in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()


FAMILY = ["--config=configs/sanitized_fmnist_small.py", "--config.data.name=digits"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.privacy.schedule=published"], ["allow_unproven", "independent"]),
        (["--config.privacy.schedule=sometimes"], ["schedule", "round_robin"]),
        (["--config.privacy.num_shards=2000"], ["num_shards", "1422"]),
        (["--config.privacy.feedback=local", "--config.privacy.feedback_l2_norm_clip=1"], ["round_robin"]),
        (["--config.method.reconstruction_weight=1", "--config.method.reconstruction_from=codes"], ["prior"]),
        (
            ["--config.privacy.schedule=round_robin", "--config.method.reconstruction_weight=1",
             "--config.method.reconstruction_from=codes"],
            ["gives that code away", "parameter"],
        ),
        (["--config.privacy.schedule=parameter", "--config.privacy.judges_per_step=5"], ["images_per_step", "a multi"]),
        (["--config.method.latent_prior=uniform"], ["bernoulli"]),
        (["--config.method.name=gan"], ["efsgd_gan"]),
        (["--config.train.expected_batch_size=3"], ["expected_batch_size"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(flags, words, tmp_path, capsys):
    assert train([*FAMILY, *flags, f"--workdir={tmp_path / 'run'}"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert all(word in errors[0] for word in words), errors[0]
    assert not (tmp_path / "run").exists()


def test_memory_is_said_before_anything_is_allocated(monkeypatch, capsys):
    mechanism = ShardMechanism(60_000, 1000, "published", 1.0)
    phase = phase_of(Hyperparameters(warm_steps=1), mechanism, ImageSpec(28, 1, 10))
    dataset = load_dataset("digits")
    run = memory.estimate([phase], dataset, None, 0)
    assert 10 * 2**30 < run.state < 14 * 2**30  # a thousand critics of width 64, with Adam
    monkeypatch.setattr(memory, "available", lambda: 8 * 2**30)
    with pytest.raises(UserError, match=r"8\.0 GiB are free; lower config\.privacy\.num_shards"):
        memory.check([phase], dataset, "config.privacy.num_shards", None, 0)
    assert "GiB" in capsys.readouterr().err
