"""The access of DP-SGD: it reads one Poisson batch and releases its clipped, noised mean gradient."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.clipped_sum import ClippedSum
from efsgd_jax.privacy.clipping import clipped_grad
from efsgd_jax.privacy.feedback import ErrorFeedbackState
from efsgd_jax.privacy.feedback_options import outer_clip
from efsgd_jax.privacy.keys import unchecked_key
from efsgd_jax.privacy.region_records import Regions, loss_of_region, mean_gradient
from efsgd_jax.privacy.residuals import unit_lengths
from efsgd_jax.privacy.stored import is_stored, rows_of
from efsgd_jax.privacy.units import Units, loss_of_unit

if TYPE_CHECKING:
    from efsgd_jax.privacy.dp_sgd import DpSgdMechanism

PyTree = Any
# loss(params, example, key) -> (value, {name: scalar})
ExampleLoss = Callable[[PyTree, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


class GradientAccess(Access):
    """The access of one step of DP-SGD, as ``DpSgdMechanism.open`` returns it.

    Args:
      mechanism: the mechanism, which determines sampling, clipping, error feedback and noise. The batch of the step is
        sampled when the access is created.
      records: pytree of the training records, leading axis N; or ``Stored``, if they stay on disk; or ``Units`` of
        either, where each of N units has several images; or ``Regions``, where only a region of each image is private.
      key: typed PRNG key of this step, secret and used once.
      mesh: mesh of the devices among which the batch is divided; None if a single device is used.
      shared: arguments of ``Access``.
    """

    def __init__(
        self, mechanism: "DpSgdMechanism", records: PyTree, key: jax.Array, *, mesh: Mesh | None = None, **shared: Any
    ):
        super().__init__(**shared)
        self._mechanism, self._records, self._mesh = mechanism, records, mesh
        draw_key, self._noise_key, self._loss_key = jax.random.split(key, 3)
        self._public_key = jax.random.fold_in(key, 3)
        self._rows, self._mask = mechanism.sample(draw_key)

    def clipped_gradient(
        self, loss: ExampleLoss, params: PyTree, residual: PyTree, *, microbatch_size: int | None = None
    ) -> tuple[PyTree, PyTree]:
        """The noised mean gradient of the batch, and error feedback's next residual.

        Args:
          loss: ``loss(params, example, key) -> (value, terms)`` of one record, or of one image of a unit. ``terms`` is
            a dictionary of scalars, whose means over the batch become private metrics. The key is secret and different
            for every example.
          params: pytree of parameters; with one clip norm per group, its top-level keys are the groups.
          residual: the residual that the step before returned; in the first step,
            ``mechanism.initial_residual(params)``. Private.
          microbatch_size: number of examples whose gradients exist at one time; None for the whole batch.

        Returns:
          The gradient, a pytree like ``params``, which is released; and the next residual, which is private and must be
          kept in the state of the phase.

        Raises:
          UndeclaredReleaseError: a second call in one step, or a call in a loop or another transformation.

        Formal guarantees:
          One step of ``mechanism.event`` for blanking one record, in the arithmetic of docs/privacy/arithmetic.md,
          whatever ``loss`` is: a gradient that is not finite contributes nothing. With ``Units`` a record is a unit:
          its gradient is the mean over its images, and it is sampled, clipped and blanked as a whole. With ``Regions``
          it is the region of one image, whose neighbour has blank pixels there: what it changes in the gradient is
          clipped and noised, and the gradient of blanked images is added to the release, which is post-processing.
        """
        self._record("the clipped gradient")
        total = self._clipped_sum(loss, params, residual, microbatch_size, self._mask)
        count = jnp.maximum(jnp.sum(self._mask), 1)
        self._note(**{name: jnp.sum(jnp.where(self._mask, x, 0.0)) / count for name, x in total.aux.items()})
        # The metric is clipped_share, or clipped_share_GROUP for each group with a clip norm of its own.
        clipped = total.clipped if isinstance(total.clipped, dict) else {"": total.clipped}
        self._note(
            **{"_".join(["clipped_share", group]).rstrip("_"): jnp.sum(x) / count for group, x in clipped.items()},
            gradient_norm=jnp.sum(total.l2_norms) / count,
            not_finite=jnp.sum(~total.finite),
            batch_size=jnp.sum(self._mask),
        )
        # The transform's key is not used: the noise comes from the key of the state.
        update = self._mechanism.unchecked_transform(unchecked_key()).update
        state = ErrorFeedbackState(self._noise_key, residual)
        gradient, state = update(total, state, params, indices=self._rows)
        if isinstance(self._records, Regions):
            gradient = jax.tree.map(jnp.add, gradient, self._public_gradient(loss, params, self._records))
        return gradient, state.residual

    def _public_gradient(self, loss: ExampleLoss, params: PyTree, records: Regions) -> PyTree:
        """The mean gradient of blanked images: public, and not of the sampled ones, since who was sampled is secret."""
        draw_key, loss_key = jax.random.split(self._public_key)
        count = max(1, round(self._mechanism.expected_batch_size))
        rows = jax.random.randint(draw_key, (count,), 0, self._mechanism.dataset_size)
        keys = jax.random.split(loss_key, count)
        return mean_gradient(loss, params, rows_of(records.blanked, rows), keys)[1]

    def _clipped_sum(
        self, loss: ExampleLoss, params: PyTree, residual: PyTree, microbatch_size: int | None, mask: jax.Array
    ) -> ClippedSum:
        """The clipped sum, without noise, over the rows of the batch where ``mask`` is True. Private."""
        m, rows, records = self._mechanism, self._rows, self._records
        if isinstance(records, Regions):
            loss, mask = loss_of_region(loss), mask & records.held[rows]
            records = (records.whole, records.blanked)
        # Of records on disk, each device reads those that it clips.
        on_disk = is_stored(records)
        return clipped_grad(
            loss_of_unit(loss) if isinstance(records, Units) else loss,
            m.l2_norm_clip,
            microbatch_size=microbatch_size,
            # Clip norm of a second sum of the same gradients, from which feedback computes what clipping removed:
            # infinite for "hidden", D for "private", None for the modes without a second sum.
            outer_l2_norm_clip=outer_clip(m.feedback, m.feedback_l2_norm_clip),
            mesh=self._mesh,
            fetch=(lambda rows: rows_of(records, rows)) if on_disk else None,
        )(
            params,
            rows if on_disk else rows_of(records, rows),
            jax.random.split(self._loss_key, len(rows)),
            mask,
            # The norms of the residuals that feedback "local" keeps for each record.
            unit_lengths(residual, rows) if m.feedback == "local" else None,
        )
