"""The access for methods with shards: each shard trains networks on its own images, and releases sanitised gradients.

The shards' networks are kept in a ``Private`` wrapper. A phase can store it, but not read it: only the shard's own
functions get the networks, and their gradients pass the sanitiser.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.feedback import ErrorFeedbackState
from efsgd_jax.privacy.keys import unchecked_key
from efsgd_jax.synthesizers.sanitized_gan.members import CHUNK, over_members, put, take
from efsgd_jax.synthesizers.sanitized_gan.sanitizer import make_sanitizer

if TYPE_CHECKING:
    from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism, Shards

PyTree = Any


@jax.tree_util.register_pytree_node_class
class Private:
    """Wraps a pytree that depends on the shards' private records; only the shards' own functions may read it."""

    def __init__(self, value: PyTree):
        self._value = value

    def tree_flatten(self) -> tuple[tuple[PyTree], None]:
        return (self._value,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[PyTree]) -> "Private":
        return cls(*children)


class ShardedRecords(NamedTuple):
    """The training records (a pytree with leading axis N) and their assignment to shards."""

    records: PyTree
    shards: "Shards"


class GeneratorLoss(NamedTuple):
    """Functions that compute the generator's loss on the images that one shard's discriminator scores in a step.

    Each function is called for one scoring shard, whose discriminator scores n images.

    Attributes:
      inputs: ``inputs(index, member, real, nonempty, key) -> given`` prepares the inputs of scoring shard number
        ``index`` of the step, from its networks ``member`` and records ``real`` of its shard. ``nonempty`` is False if
        the shard has no records. ``given`` is a pytree. Its ``given.z`` and ``given.labels``, with a leading axis of n,
        are the generator's inputs; ``losses`` gets all of it.
      examples: number of records of the shard that ``inputs`` gets; 0 if it reads none.
      decode: ``decode(params, z, labels, key) -> images`` applies the generator.
      losses: ``losses(member, images, given)`` returns the loss of each image, ``[n]``.
    """

    inputs: Callable[..., Any]
    examples: int
    decode: Callable[..., jax.Array]
    losses: Callable[..., jax.Array]


class ShardAccess(Access):
    """The access of one step of a method with shards, as ``ShardMechanism.open`` returns it.

    Args:
      mechanism: decides which shards train and which score images in each step, and has the sanitiser.
      data: the training records by shard.
      key: typed PRNG key of this step, secret and used once.
      step: number of the step (int, from 0), which the public schedule depends on.
      shared: the arguments of ``Access``.
    """

    def __init__(
        self, mechanism: "ShardMechanism", data: ShardedRecords, key: jax.Array, step: jax.Array, **shared: Any
    ):
        super().__init__(**shared)
        self._mechanism, self._data = mechanism, data
        turn_key, self._train_key, self._score_key, self._noise_key = jax.random.split(key, 4)
        self._turn = mechanism.turn(turn_key, step)

    def train(self, f: Callable[..., tuple[PyTree, dict[str, jax.Array]]], members: Private, examples: int) -> Private:
        """Trains the networks of the shards whose turn it is in this step, on their own records.

        Args:
          f: ``f(member, real, key) -> (member, metrics)`` trains the networks of one shard. ``real`` are ``examples``
            records of the shard, with a leading axis.
          members: the networks of all shards, leading axis K.
          examples: number of records in ``real``.

        Returns:
          The networks of all shards. Those of a shard without records are unchanged. The metrics are averaged over the
          shards and become private metrics of the step.
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
        """Trains the networks of every shard by ``f(member, real, key) -> member``.

        Shards are processed in chunks, so that the memory never holds a second copy of all networks. The networks of a
        shard without records are unchanged. ``members`` and ``examples`` are those of ``train``.
        """
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
        self, generator_loss: GeneratorLoss, members: Private, params: PyTree, residual: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The sanitised gradient with respect to the generator's parameters, and the next residual of error feedback.

        Args:
          generator_loss: the functions that compute the loss on the images of each scoring shard.
          members: the networks of all shards, leading axis K.
          params: the generator's parameters.
          residual: the residual that the step before returned; in the first step ``mechanism.initial_residual``.
            Private.

        Raises:
          UndeclaredReleaseError: a second call in one step, or a call in a loop.

        Formal guarantees:
          One step of ``mechanism.event``: the gradient of a scoring shard is a function of that shard and of what was
          released. In image space, ``z`` and ``labels`` enter the generator without passing the sanitiser. They must
          therefore come from keys, unless the mechanism has ``real_codes`` and so proves nothing.
        """
        self._record("the sanitised gradient of the discriminators")
        m, scoring = self._mechanism, self._turn.scoring
        draw_key, input_key, injection_key = jax.random.split(self._score_key, 3)
        stack = members._value
        real: Any = self._read(draw_key, scoring, generator_loss.examples) if generator_loss.examples else ()

        def given_to(index: jax.Array, real: Any, nonempty: jax.Array, key: jax.Array) -> Any:
            return generator_loss.inputs(index, take(stack, scoring[index]), real, nonempty, key)

        nonempty, keys = self._data.shards.sizes[scoring] > 0, jax.random.split(input_key, m.num_scoring)
        given = over_members(given_to, jnp.arange(m.num_scoring), real, nonempty, keys)
        sanitised = self._in_images if m.in_image_space else self._in_parameters
        gradient, residual, loss = sanitised(generator_loss, stack, given, params, residual, injection_key)
        self._note(generator=loss)
        return gradient, residual

    # The networks of a shard are read inside of the loop over scoring shards: a copy of all of them would take too much
    # memory.

    def _in_images(
        self, generator_loss: GeneratorLoss, stack: PyTree, given: Any, params: PyTree, residual: PyTree, key: jax.Array
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """Sanitises the gradient with respect to each image, and backpropagates the results through the generator.

        The loss is the sum over the images, so that what is clipped is the gradient of an image's own loss. The
        sanitiser then divides by the number of images, which gives the gradient of the mean.
        """
        m, scoring = self._mechanism, self._turn.scoring
        each = m.images_per_step // m.num_scoring  # number of images that each scoring shard scores
        sanitize = make_sanitizer(m.transform(unchecked_key()))  # this key is not used: each call is given its own

        def loss(params: PyTree, residual: PyTree) -> tuple[jax.Array, jax.Array]:
            z, labels = (x.reshape(-1, *x.shape[2:]) for x in (given.z, given.labels))
            fakes = generator_loss.decode(params, z, labels, key)
            shard_of_image = jnp.repeat(scoring, each)
            clean = jax.vmap(sanitize, in_axes=(0, 0, None, 0))(fakes, residual, self._noise_key, shard_of_image)
            by_shard = clean.reshape(m.num_scoring, each, *fakes.shape[1:])
            losses = over_members(lambda k, x, g: generator_loss.losses(take(stack, k), x, g), scoring, by_shard, given)
            return jnp.sum(losses), jnp.mean(losses)

        (gradient, residual), mean = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, residual)
        return gradient, residual, mean

    def _in_parameters(
        self, generator_loss: GeneratorLoss, stack: PyTree, given: Any, params: PyTree, residual: PyTree, key: jax.Array
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """Sanitises each shard's gradient with respect to the generator's parameters, as one example's gradient."""
        m, scoring = self._mechanism, self._turn.scoring

        def of_shard(k: jax.Array, given: Any, key: jax.Array) -> tuple[jax.Array, PyTree]:
            def loss(params: PyTree) -> jax.Array:
                fakes = generator_loss.decode(params, given.z, given.labels, key)
                return jnp.mean(generator_loss.losses(take(stack, k), fakes, given))

            return jax.value_and_grad(loss)(params)

        losses, grads = over_members(of_shard, scoring, given, jax.random.split(key, m.num_scoring))
        update = m.transform(unchecked_key()).update
        gradient, new = update(grads, ErrorFeedbackState(self._noise_key, residual), params)
        return gradient, new.residual, jnp.mean(losses)

    def _read(self, key: jax.Array, members: jax.Array, count: int) -> PyTree:
        """Samples ``count`` records from each of the shards ``members``: leading axes ``[len(members), count]``."""
        rows = self._mechanism.draw(key, self._data.shards, members, count)
        return jax.tree.map(lambda x: x[rows], self._data.records)
