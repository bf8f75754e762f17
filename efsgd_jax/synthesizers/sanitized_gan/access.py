"""The access of shard methods: shards train on their own images, and sanitised gradients leave them.

What a shard has trained is kept in a ``Private`` wrapper, which a phase can store but not read: it comes back to the
shard's own functions only, or passes the sanitiser.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.feedback import ErrorFeedbackState
from efsgd_jax.privacy.keys import fresh_key
from efsgd_jax.synthesizers.sanitized_gan.members import CHUNK, over_members, put, take
from efsgd_jax.synthesizers.sanitized_gan.sanitizer import make_sanitizer

if TYPE_CHECKING:
    from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism, Shards

PyTree = Any


@jax.tree_util.register_pytree_node_class
class Private:
    """A pytree of what shards know; for their own functions only."""

    def __init__(self, value: PyTree):
        self._value = value

    def tree_flatten(self) -> tuple[tuple[PyTree], None]:
        return (self._value,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[PyTree]) -> "Private":
        return cls(*children)


class ShardedRecords(NamedTuple):
    """The training records (pytree, leading axis N) and which shard holds which."""

    records: PyTree
    shards: "Shards"


class Judged(NamedTuple):
    """How judges are asked for gradients of generated images; each function is of one judge.

    Attributes:
      inputs: ``inputs(index, member, real, nonempty, key) -> given``: of the judge with this index in the step, from
        records of its shard: a pytree of what its images are made from, ``given.z`` and ``given.labels`` with a leading
        axis of its n images, and of what else it wants to know when it judges.
      examples: how many records ``inputs`` sees.
      decode: ``decode(params, z, labels, key) -> images``: the generator.
      judge: ``judge(member, images, given) -> losses`` ``[n]``.
    """

    inputs: Callable[..., Any]
    examples: int
    decode: Callable[..., jax.Array]
    judge: Callable[..., jax.Array]


class ShardAccess(Access):
    """Opened by ``ShardMechanism.open``.

    Args:
      mechanism: who trains when, who judges what, and the sanitiser.
      data: the training records by shard.
      key: typed PRNG key of this step, secret and used once.
      step: int, of the public schedule.
      shared: see ``Access``.
    """

    def __init__(
        self, mechanism: "ShardMechanism", data: ShardedRecords, key: jax.Array, step: jax.Array, **shared: Any
    ):
        super().__init__(**shared)
        self._mechanism, self._data = mechanism, data
        turn_key, self._train_key, self._judge_key, self._noise_key = jax.random.split(key, 4)
        self._turn = mechanism.turn(turn_key, step)

    def train(self, f: Callable[..., tuple[PyTree, dict[str, jax.Array]]], members: Private, examples: int) -> Private:
        """The shards whose turn it is train on their own records.

        Args:
          f: ``f(member, real, key) -> (member, metrics)`` of one shard; ``real`` are records with a leading axis.
          members: of all shards, leading axis K.
          examples: records in ``real``.

        Returns:
          All members; a shard without records stays as it was. Means of the metrics are private metrics.
        """
        turn, data = self._turn.training, self._data
        draw_key, train_key = jax.random.split(self._train_key)
        real = self._read(draw_key, turn, examples)
        inputs = take(members._value, turn), real, jax.random.split(train_key, len(turn))
        trained, metrics = over_members(f, *inputs)
        self._note(**{name: jnp.mean(x) for name, x in metrics.items()})
        self._note(batch_size=jnp.asarray(len(turn) * examples))
        return Private(put(members._value, turn, trained, data.shards.sizes[turn] > 0))

    def train_all(self, f: Callable[..., PyTree], members: Private, examples: int) -> Private:
        """``f(member, real, key) -> member`` for every shard, in chunks: no second stack of members exists."""
        k = self._mechanism.num_shards
        size = min(CHUNK, k)
        chunks = jnp.arange(-(-k // size) * size).reshape(-1, size)

        def some(stack: PyTree, inputs: tuple[jax.Array, jax.Array]) -> tuple[PyTree, None]:
            chunk, key = inputs
            draw_key, train_key = jax.random.split(key)
            real = self._read(draw_key, chunk, examples)
            new = over_members(f, take(stack, chunk), real, jax.random.split(train_key, size))
            return put(stack, chunk, new, self._data.shards.sizes[chunk] > 0), None

        keys = jax.random.split(self._train_key, len(chunks))
        return Private(jax.lax.scan(some, members._value, (chunks, keys))[0])

    def generator_gradient(
        self, judged: Judged, members: Private, params: PyTree, residual: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The sanitised gradient of the generator's parameters, and error feedback's next residual.

        Args:
          judged: how judges are asked.
          members: of all shards.
          params: the generator's.
          residual: of the step before, from ``mechanism.initial_residual`` at first. Private.

        Raises:
          UndeclaredReleaseError: a second call in one step, or a call in a loop.

        Formal guarantees:
          One step of ``mechanism.event``: a judge's gradient is a function of its own shard and of what was released.
          In image space ``z`` and ``labels`` enter the generator beside the sanitiser: they must come from keys, unless
          the mechanism says ``real_codes`` and so proves nothing.
        """
        self._record("the sanitised gradient of the judges")
        m, asked = self._mechanism, self._turn.judges
        draw_key, input_key, injection_key = jax.random.split(self._judge_key, 3)
        stack = members._value
        real: Any = self._read(draw_key, asked, judged.examples) if judged.examples else ()

        def given_to(index: jax.Array, real: Any, nonempty: jax.Array, key: jax.Array) -> Any:
            return judged.inputs(index, take(stack, asked[index]), real, nonempty, key)

        nonempty, keys = self._data.shards.sizes[asked] > 0, jax.random.split(input_key, m.judges)
        given = over_members(given_to, jnp.arange(m.judges), real, nonempty, keys)
        ask = self._in_images if m.in_image_space else self._in_parameters
        gradient, residual, loss = ask(judged, stack, given, params, residual, injection_key)
        self._note(generator=loss)
        return gradient, residual

    # Judges are read inside of the loop: a gathered copy of B critics would cost more than what they say.

    def _in_images(
        self, judged: Judged, stack: PyTree, given: Any, params: PyTree, residual: PyTree, key: jax.Array
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """Every image's gradient is sanitised, and the chain rule goes on from there into the generator."""
        m, asked = self._mechanism, self._turn.judges
        each = m.images_per_step // m.judges
        sanitize = make_sanitizer(m.transform(fresh_key()))  # the key that counts is that of the call

        def loss(params: PyTree, residual: PyTree) -> tuple[jax.Array, jax.Array]:
            z, labels = (x.reshape(-1, *x.shape[2:]) for x in (given.z, given.labels))
            fakes = judged.decode(params, z, labels, key)
            units = jnp.repeat(asked, each)
            clean = jax.vmap(sanitize, in_axes=(0, 0, None, 0))(fakes, residual, self._noise_key, units)
            of_judges = clean.reshape(m.judges, each, *fakes.shape[1:])
            losses = over_members(lambda k, x, g: judged.judge(take(stack, k), x, g), asked, of_judges, given)
            return jnp.sum(losses), jnp.mean(losses)

        (gradient, residual), mean = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, residual)
        return gradient, residual, mean

    def _in_parameters(
        self, judged: Judged, stack: PyTree, given: Any, params: PyTree, residual: PyTree, key: jax.Array
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """Every judge's gradient of the generator's parameters is one example of the transform."""
        m, asked = self._mechanism, self._turn.judges

        def of_judge(k: jax.Array, given: Any, key: jax.Array) -> tuple[jax.Array, PyTree]:
            def loss(params: PyTree) -> jax.Array:
                fakes = judged.decode(params, given.z, given.labels, key)
                return jnp.mean(judged.judge(take(stack, k), fakes, given))

            return jax.value_and_grad(loss)(params)

        losses, grads = over_members(of_judge, asked, given, jax.random.split(key, m.judges))
        update = m.transform(fresh_key()).update
        gradient, new = update(grads, ErrorFeedbackState(self._noise_key, residual), params)
        return gradient, new.residual, jnp.mean(losses)

    def _read(self, key: jax.Array, members: jax.Array, count: int) -> PyTree:
        """``count`` records of each of some shards, leading axes ``[len(members), count]``."""
        rows = self._mechanism.draw(key, self._data.shards, members, count)
        return jax.tree.map(lambda x: x[rows], self._data.records)
