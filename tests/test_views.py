"""Neighbours differ in one record, which is blank in one of them; every other record's view is bitwise the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.gaussian_mixture.appearance import AppearanceOptions, to_vector
from efsgd_jax.synthesizers.reranking import RerankerOptions, random_features
from efsgd_jax.synthesizers.reranking.oriented_gradients import features_of
from efsgd_jax.training.views import VIEW_CHUNK, view_all

VIEWS = {
    "features of the re-ranking classifier": lambda x: features_of(x[None].astype(jnp.float32) / 255)[0],
    "random features": lambda x: random_features.features_of(x[None].astype(jnp.float32) / 255, RerankerOptions())[0],
    "pose": lambda x: to_vector(x, AppearanceOptions(pose_weight=8.0, low_pass=6)),
    "aligned lines": lambda x: to_vector(x, AppearanceOptions(align_lines=True, low_pass=6)),
    "aligned spots": lambda x: to_vector(x, AppearanceOptions(align_spot=True, low_pass=6)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("spec", [ImageSpec(13, 3, 10), ImageSpec(28, 1, 10)], ids=lambda s: f"{s.image_size}")
@pytest.mark.parametrize("value", [0, 255])
def test_a_record_decides_no_other_view(name, spec, value):
    if name == "pose" and spec.channels == 3:
        pytest.skip("a pose is for grey images")
    count = VIEW_CHUNK + 37  # a whole chunk, and a part of one
    images = np.random.default_rng(0).integers(0, 256, (count, *spec.shape)).astype(np.uint8)

    def views(images):
        records = Record(jnp.asarray(images), jnp.zeros(count, jnp.int32))
        return np.asarray(view_all(lambda record, _: VIEWS[name](record.image), records, {}))

    whole = views(images)
    assert np.isfinite(whole).all()
    for place in (0, 17, count - 1):
        changed = images.copy()
        changed[place] = value
        others = np.delete(np.arange(count), place)
        np.testing.assert_array_equal(views(changed)[others], whole[others])
