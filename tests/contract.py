"""What every method must keep: subclass ``SynthesizerContract``, and say which configuration is small.

    class TestMyMethod(SynthesizerContract):
        method = "my_method"
        changes = {"method": {"width": 4}, "train": {"steps": 3}}

The tests run the method on two small data sets of random images, through the runner's own functions.
"""

import contextlib
import copy
import dataclasses
import functools
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import default_config
from efsgd_jax.config import validate
from efsgd_jax.data import Dataset
from efsgd_jax.errors import Stopped
from efsgd_jax.privacy import UndeclaredReleaseError, feedback, one_shot
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.training import loop, runner
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.public_data import PublicData
from efsgd_jax.training.runner import train
from efsgd_jax.training.setup import bind
from efsgd_jax.training.update import Inputs, keys_of_phase, make_update, make_warm_up

SIZE, CLASSES, N = 8, 3, 24
# What an epsilon of a mechanism is computed with counts only that many records: small ones need a large delta.
DELTA = 1e-3


def data_set(seed):
    """Random images: bright ones of seed 0, dark ones of others, with other labels."""
    rng = np.random.default_rng(seed)
    low, high = (128, 256) if seed == 0 else (0, 128)
    images = rng.integers(low, high, (N, SIZE, SIZE, 1), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, N).astype(np.int32)
    return Dataset(images, labels, images[:4], labels[:4], tuple("abc"[:CLASSES]), "random")


def bound(config):
    """The run on the data set of seed 0; with an autoencoder, also on random public images."""
    public = None
    if config.method.get("autoencoder_width"):
        public = PublicData(data_set(2).train_images, "random images")
    return bind(config, data_set(0), public=public)


def same(a, b):
    """Bitwise, with shapes and types: NaN of the same bits is the same."""
    a, b = ([np.asarray(x) for x in jax.tree.leaves(tree)] for tree in (a, b))
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


def compiled(f):
    return jax.jit(f, compiler_options=compiler_options())


class Programs:
    """The phases of a method as compiled programs; ``change`` may plant something in a phase."""

    def __init__(self, config, change=lambda phase: phase):
        setup = bound(config)
        self.public = setup.public.content if setup.public else None
        self.phases = [change(phase) for phase in setup.phases]
        self.inits = [compiled(phase.init) for phase in self.phases]
        self.views = [
            compiled(jax.vmap(phase.view, (0, None))) if phase.view else lambda r, released: r for phase in self.phases
        ]
        self.warm_ups = [make_warm_up(phase) for phase in self.phases]
        self.updates = [make_update(phase) for phase in self.phases]  # as the runner compiles them

    def copy(self):
        """The same compiled programs, in lists of their own."""
        other = copy.copy(self)
        vars(other).update({name: list(x) for name, x in vars(self).items() if isinstance(x, list)})
        return other

    def run(self, data, *, steps=2, earlier=None):
        """What each phase releases after each of its first steps and in the end, with fixed keys.

        With ``earlier``, each phase is told that the phases before it released that.
        """
        released, history = {}, []
        records = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
        for i, phase in enumerate(self.phases):
            keys, mechanism = keys_of_phase(jax.random.key(5), i), phase.plan.mechanism
            rows = mechanism.arrange(keys.arrange, self.views[i](records, released)) if mechanism is not None else None
            public = self.public if mechanism is None else None
            inputs = Inputs(keys.access, keys.step, rows, released, public)
            state = self.inits[i](keys.init, released)
            for t in range(-phase.warm_steps, 0):
                state = self.warm_ups[i](state, jnp.int32(t), inputs)
            for t in range(min(phase.plan.steps, steps)):
                state, _ = self.updates[i](state, jnp.int32(t), inputs)
                history.append(jax.device_get(phase.release(state)))
            found = jax.device_get(phase.release(state)) if earlier is None else earlier[phase.name]
            released = {**released, phase.name: found}
        return history, released


@contextlib.contextmanager
def silent_mechanisms():
    """Every release is zero, whatever it is of: those of the transform, and those of a ``Release``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feedback, "add_noise", lambda tree, std, moved, key: jax.tree.map(jnp.zeros_like, tree))
        patch.setattr(
            one_shot.Release,
            "noised",
            lambda self, exact, count: jnp.zeros(exact.total.low.shape),
        )
        yield


@contextlib.contextmanager
def without_noise(kept):
    """No noise; what it would have been added to goes to ``kept``: ``[(release, claimed sensitivity, vector)]``."""

    def note(claim, *leaves, release):
        vector = np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in leaves])
        kept.append((release, float(claim), vector))

    releases, channels = [], []

    def add_noise(tree, std, moved, key):
        channels.append(tree)
        jax.debug.callback(functools.partial(note, release=-len(channels)), moved, *jax.tree.leaves(tree))
        return tree

    def noised(self, exact, count):
        sums = one_shot.to_floats(exact.total) * exact.unit
        if self not in releases:
            releases.append(self)
        which = 1 + releases.index(self)
        jax.debug.callback(functools.partial(note, self.sensitivity, release=which), sums, ordered=True)
        return sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feedback, "add_noise", add_noise)
        patch.setattr(one_shot.Release, "noised", noised)
        yield


def a_shape(programs, data):
    """A size in what is released is counted in the data."""
    bright = int(np.sum(data.train_images > 200))
    return release_also(programs, data, lambda state: jnp.zeros(bright))


def a_default(programs, data):
    """A constant in what is released is computed from the data."""
    mean = float(np.mean(data.train_images))
    return release_also(programs, data, lambda state: jnp.float32(mean))


def release_also(programs, data, what):
    last = programs.phases[-1]
    programs.phases[-1] = last._replace(release=lambda state: (last.release(state), what(state)))
    return programs.run(data)


def a_statistic(programs, data):
    """A step reads raw records, beside what its access offers, and adds their sum to what its phase releases."""
    i = max(i for i, phase in enumerate(programs.phases) if phase.plan.mechanism is not None)
    last = programs.phases[i]

    def step(state, access, key):
        records = vars(access).get("_records", vars(access).get("_data"))
        raw = sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(records))
        state, metrics = last.step(state[0], access, key)
        return (state, raw), metrics

    leaking = last._replace(
        init=lambda key, released: (last.init(key, released), jnp.zeros(())),
        step=step,
        warm_up=None,
        warm_steps=0,
        release=lambda state: jax.tree.map(lambda x: x + state[1], last.release(state[0])),
    )
    programs.phases[i], programs.inits[i] = leaking, compiled(leaking.init)
    programs.updates[i] = make_update(leaking)
    return programs.run(data)


class SynthesizerContract:
    """See the module."""

    method = ""
    changes: ClassVar[dict] = {}
    # Leaks that the comparison of releases must notice.
    plants: ClassVar = (a_shape, a_default, a_statistic)

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls):
        config = default_config(cls.method)
        config.privacy.delta = DELTA
        config.train.update(log_every=1, grid_every=1)
        for group, values in cls.changes.items():
            config[group].update(values)
        validate(config)
        return config

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def steps_compiled_once(cls):
        """For several runs of one setup. What was compiled can be cleared, as it is gone when a process has ended."""
        kept = {}

        def once(phase, mesh=None, steps=1, placed=None):
            key = id(phase), steps
            if key not in kept:
                kept[key] = (
                    phase,
                    make_update(phase, mesh, steps, placed),
                )  # with the phase, so that its id stays its own
            return kept[key][1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "make_update", once)
            yield kept

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, config, tmp_path_factory):
        """A run that nothing interrupted: its setup, its files, and what it released."""
        setup, directory = bound(config), Workdir(tmp_path_factory.mktemp("contract") / "run")
        directory.create()
        return setup, directory, train(setup, directory, False)[0]

    @pytest.fixture(scope="class")
    @classmethod
    def programs(cls, config):
        return Programs(config)

    def test_the_same_keys_give_the_same_release(self, programs):
        assert same(programs.run(data_set(0)), programs.run(data_set(0)))

    def test_with_silent_mechanisms_the_release_is_the_same_for_all_data(self, config):
        with silent_mechanisms():
            programs = Programs(config)
            assert same(*(programs.run(data_set(seed)) for seed in (0, 1)))
            for plant in self.plants:
                assert not same(*(plant(programs.copy(), data_set(seed)) for seed in (0, 1))), plant.__doc__

    def test_with_its_mechanisms_the_release_is_of_the_data(self, programs):
        """Or the comparison above would be of nothing."""
        assert not same(programs.run(data_set(0)), programs.run(data_set(1)))

    def test_a_run_that_is_stopped_in_any_phase_ends_as_one_that_is_not(
        self, trained, steps_compiled_once, tmp_path, monkeypatch
    ):
        setup, directory, wanted = trained
        steps_compiled_once.clear()  # or what a step draws while it is traced would be the same in all runs
        root = tmp_path / "stopped"
        stopped = Workdir(root)
        stopped.create()
        stopped.key.write_bytes(directory.key.read_bytes())
        ends = np.cumsum([phase.plan.steps for phase in setup.phases])
        stops = [int(end - (phase.plan.steps + 1) // 2) for end, phase in zip(ends, setup.phases, strict=True)]
        stops = sorted({stop for stop in [*stops, *map(int, ends)] if 0 < stop < ends[-1]})
        charged = []
        for stop in stops:
            monkeypatch.setattr(
                runner, "preemption", lambda at=stop: contextlib.nullcontext(lambda position: position == at)
            )
            with pytest.raises(Stopped, match=f"step {stop} of"):
                train(setup, stopped, False)
            charged.append(steps_charged(stopped))
        monkeypatch.undo()
        assert same(train(setup, stopped, False)[0], wanted)
        # The ledger ran ahead of each stop, but never into a phase that had not begun.
        private = np.cumsum([p.plan.steps if p.plan.mechanism else 0 for p in setup.phases])
        for stop, steps in zip(stops, charged, strict=True):
            assert steps <= private[np.searchsorted(ends, stop)]
        assert steps_charged(stopped) == setup.ledger.steps

    def test_every_step_releases_what_its_mechanism_declares(self, config, trained):
        setup, directory, _ = trained
        data = data_set(0)
        records = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
        released = {}
        for i, phase in enumerate(setup.phases):
            keys, mechanism = keys_of_phase(jax.random.key(0), i), phase.plan.mechanism
            seen = []

            def traced(records, released=released, phase=phase, keys=keys, mechanism=mechanism, seen=seen):
                rows = records if phase.view is None else jax.vmap(phase.view, (0, None))(records, released)
                opened = mechanism.open(mechanism.arrange(keys.arrange, rows), keys.access, 0, released=released)
                state, _ = phase.step(phase.init(keys.init, released), opened, keys.step)
                seen.extend(opened.recorded)
                return phase.release(state)

            if mechanism is None:
                like = jax.eval_shape(lambda p=phase, k=keys, r=released: p.release(p.init(k.init, r)))
            else:
                like = jax.eval_shape(traced, records)
                assert sum(r.share for r in seen) == pytest.approx(1)
            released = {**released, phase.name: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)}
        assert steps_charged(directory) == setup.ledger.steps
        assert setup.ledger.spent(setup.ledger.steps) <= config.privacy.epsilon

    def test_a_record_moves_a_release_by_no_more_than_is_claimed(self, config):
        """Searched for: the record is replaced by images unlike any other, which may move a release twice as far."""
        with without_noise(kept := []):
            programs, moved = Programs(config), []
            _, earlier = programs.run(data_set(0), steps=1)
            tried = [(7, None), *((7, what) for what in ("white", "noise", "stripes"))]
            tried += [(row, "white") for row in range(0, N, 3)]  # a step may read some records only
            for row, replacement in tried:
                jax.effects_barrier()
                kept.clear()
                programs.run(with_record(data_set(0), row, replacement), steps=1, earlier=earlier)
                jax.effects_barrier()
                moved.append(list(kept))
        before, *others = moved
        shares = [distance / claim for after in others for claim, distance in distances(before, after)]
        assert 0 < max(shares) <= 2 * (1 + 1e-5)

    def test_what_is_published_is_as_declared_and_draws_images(self, config, trained):
        setup, _, published = trained
        method, spec = method_named(self.method), setup.dataset.spec
        hyperparameters = method.read(config.method.to_dict())
        wanted = method.released_like(spec, hyperparameters)
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), (published, wanted))
        assert shapes[0] == shapes[1]
        images = jax.jit(setup.generate)(published, jax.random.key(0), jnp.arange(CLASSES))
        assert images.shape == (CLASSES, SIZE, SIZE, 1)
        assert np.abs(images).max() <= 1

    def test_a_release_that_was_not_declared_is_refused(self, config):
        def twice(phase):
            if phase.plan.mechanism is None:
                return phase

            def step(state, access, key):
                state, _ = phase.step(state, access, key)
                return phase.step(state, access, key)

            return phase._replace(step=step)

        def in_a_loop(phase):
            if phase.plan.mechanism is None:
                return phase

            def step(state, access, key):
                return jax.lax.fori_loop(0, 2, lambda _, s: phase.step(s, access, key)[0], state), {}

            return phase._replace(step=step)

        for change in (twice, in_a_loop):
            with pytest.raises(UndeclaredReleaseError, match=r"releases|released"):
                Programs(config, change).run(data_set(0))


def steps_charged(directory):
    return json.loads(directory.begun.read_text())["steps"] if directory.begun.is_file() else 0


def with_record(data, row, replacement):
    """The data with another record in the place of one."""
    images, labels = data.train_images.copy(), data.train_labels.copy()
    if replacement is not None:
        labels[row] = (labels[row] + 1) % CLASSES
        images[row] = {
            "white": 255,
            "noise": np.random.default_rng(3).integers(0, 256, images[row].shape),
            "stripes": 255 * (np.arange(SIZE) % 2)[:, None, None],
        }[replacement]
    return dataclasses.replace(data, train_images=images, train_labels=labels)


def distances(before, after):
    """``(claimed sensitivity, l2 norm of the difference)`` of each release of the first step of each phase.

    Terms of one full-batch release (numbered from 1) have one claim together, every channel of the transform (numbered
    from -1 down) has its own.
    """
    before, after = (sorted(found, key=lambda one: one[0]) for found in (before, after))
    assert [(r, c, len(v)) for r, c, v in before] == [(r, c, len(v)) for r, c, v in after]
    joint = {}
    for i, ((release, claim, a), (_, _, b)) in enumerate(zip(before, after, strict=True)):
        joint.setdefault((release, i if release < 0 else 0), (claim, []))[1].append(np.linalg.norm(a - b))
    return [(claim, float(np.linalg.norm(parts))) for claim, parts in joint.values()]
