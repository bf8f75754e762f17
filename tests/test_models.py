"""The modules: shapes, sizes, the fast convolution against the reference, noise injection, conditioning."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.data import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.models import Discriminator, Encoder, Generator, Posterior
from efsgd_jax.models.convolution import VARIABLE, convolve
from efsgd_jax.models.cpu_convolution import conv_general_dilated
from efsgd_jax.models.layers import Conv, UpsamplingConv, upsample
from efsgd_jax.models.sizes import base_and_stages
from efsgd_jax.privacy import clipping_plan

RNGS = {"params": jax.random.key(0), "noise": jax.random.key(1)}


def size(module, *args):
    """The number of parameters, from shapes alone."""
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(module.init, RNGS, *args)))


def init(module, *args):
    return jax.jit(module.init)(RNGS, *args)


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("image_size", [8, *(pytest.param(side, marks=pytest.mark.slow) for side in (28, 32, 64))])
def test_outputs_have_the_shapes_and_ranges_of_the_images(image_size, channels):
    spec = ImageSpec(image_size, channels, 5)
    labels = jnp.array([0, 4])
    generator = Generator(spec, width=4, max_width=8)
    params = init(generator, jnp.ones((2, 6)), labels)
    images = jax.jit(generator.apply)(params, jnp.ones((2, 6)), labels, rngs={"noise": jax.random.key(2)})
    assert images.shape == (2, *spec.shape)
    assert jnp.abs(images).max() <= 1
    discriminator, encoder = Discriminator(spec, 4, 8, 16), Encoder(spec, 6, 4, 8)
    judgement = jax.jit(discriminator.apply)(init(discriminator, images, labels), images, labels)
    assert judgement.realness.shape == (2,)
    assert judgement.class_logits.shape == (2, 5)
    posterior = jax.jit(encoder.apply)(init(encoder, images, labels), images, labels)
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 6)


def test_networks_have_the_parameters_of_their_layers():
    spec = ImageSpec(8, 1, 10)
    labels, z, image = jnp.zeros(1, int), jnp.zeros((1, 8)), jnp.zeros((1, 8, 8, 1))
    conv = lambda k, a, b: k * k * a * b + b  # noqa: E731
    block = lambda a, b: conv(1, a, b) + conv(3, a, b) + b + conv(3, b, b)  # noqa: E731
    expected = (8 + 10 + 1) * 4 * 4 * 16 + block(16, 8) + conv(3, 8, 1)
    assert size(Generator(spec, 8, 16), z, labels) == expected
    assert size(Generator(spec, 8, 16, noise_injection=False), z, labels) == expected - 8
    trunk = conv(3, 1, 8) + conv(3, 8, 16)
    heads = (256 + 1) * 32 + 10 * 32 + (32 + 1) + (32 + 1) * 10
    assert size(Discriminator(spec, 8, 16, 32), image, labels) == trunk + heads
    assert size(Encoder(spec, 8, 8, 16), image, labels) == trunk + 2 * (256 + 10 + 1) * 8


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (1, 1), (5, 2)])
def test_conv_equals_flax_in_value_and_gradient(kernel_size, stride):
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 3))
    pad = kernel_size // 2
    reference = nn.Conv(4, (kernel_size,) * 2, (stride,) * 2, padding=[(pad, pad)] * 2)
    params = reference.init(jax.random.key(1), x)
    want, want_grad = jax.value_and_grad(lambda p: jnp.sum(reference.apply(p, x) ** 3))(params)
    conv = Conv(4, kernel_size, stride)
    got, grad = jax.value_and_grad(lambda p: jnp.sum(conv.apply(p, x) ** 3))(params)
    assert float(got) == pytest.approx(float(want), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2), grad, want_grad)


GEOMETRIES = [
    (stride, sides, window, padding, channels)
    for stride in (1, 2, 3)
    for sides, window, padding in (
        ((7, 8), (5, 5), ((2, 2), (2, 2))),
        ((8, 5), (3, 4), ((0, 1), (1, 0))),
        ((6, 9), (3, 3), ((1, 1), (1, 1))),
    )
    for channels in ((1, 9), (4, 2), (4, 9))  # patches, rows, and XLA's own
]
# Every second one, so that every stride, window and number of channels is among them.
OF_ALL = [pytest.param(*g, marks=[pytest.mark.slow] * (i % 2)) for i, g in enumerate(GEOMETRIES)]


@pytest.mark.parametrize(("stride", "sides", "window", "padding", "channels"), OF_ALL)
def test_convolve_equals_xlas_in_value_and_two_derivatives(stride, sides, window, padding, channels):
    x = jax.random.normal(jax.random.key(0), (3, *sides, channels[0]))
    kernel = jax.random.normal(jax.random.key(1), (*window, *channels))

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def all_orders(f, x, kernel):
        def energy(x, kernel):
            return jnp.sum(jnp.square(f(x, kernel)))

        def steepness(x, kernel):
            return sum(jnp.sum(jnp.sin(g)) for g in jax.grad(energy, argnums=(0, 1))(x, kernel))

        return f(x, kernel), jax.grad(energy, argnums=(0, 1))(x, kernel), jax.grad(steepness, argnums=(0, 1))(x, kernel)

    got, want = (
        jax.jit(functools.partial(all_orders, f))(x, kernel)
        for f in (lambda x, k: convolve(x, k, stride, padding), reference)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * jnp.abs(b).max()), got, want)


@pytest.mark.parametrize(("stride", "sides", "window", "padding", "channels"), GEOMETRIES[::4])
def test_convolve_under_vmap_is_one_example_after_another(stride, sides, window, padding, channels):
    x = jax.random.normal(jax.random.key(0), (3, 2, *sides, channels[0]))
    kernels = jax.random.normal(jax.random.key(1), (3, *window, *channels))

    def derivatives(x, kernel):
        def energy(x, kernel):
            return jnp.sum(jnp.sin(convolve(x, kernel, stride, padding)))

        return energy(x, kernel), jax.grad(energy, argnums=(0, 1))(x, kernel)

    alone = jax.jit(derivatives)
    for axes in ((0, None), (None, 0), (0, 0)):
        a, b = (value if axis == 0 else value[0] for value, axis in zip((x, kernels), axes, strict=True))
        got = jax.jit(jax.vmap(derivatives, axes))(a, b)
        rows = [alone(*(v[i] if axis == 0 else v for v, axis in zip((a, b), axes, strict=True))) for i in range(3)]
        chex.assert_trees_all_close(got, jax.tree.map(lambda *r: jnp.stack(r), *rows), rtol=1e-3, atol=1e-4)


def test_noise_is_injected_at_every_stage_and_can_be_switched_off():
    spec = ImageSpec(32, 1, 2)
    labels, z = jnp.array([1]), jnp.ones((1, 4))
    noisy, quiet = Generator(spec, 4, 8), Generator(spec, 4, 8, noise_injection=False)
    params = init(noisy, z, labels)
    scales = [x for path, x in jax.tree_util.tree_leaves_with_path(params) if "NoiseInjection" in str(path)]
    assert len(scales) == base_and_stages(32)[1] == 3
    apply = jax.jit(noisy.apply)
    a, b = (apply(params, z, labels, rngs={"noise": jax.random.key(i)}) for i in (0, 1))
    assert jnp.abs(a - b).max() > 1e-3
    jax.eval_shape(lambda key: quiet.apply(quiet.init(key, z, labels), z, labels), jax.random.key(0))  # needs no stream


def test_realness_depends_on_the_label_and_class_logits_do_not():
    spec = ImageSpec(8, 1, 3)
    image = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    discriminator = Discriminator(spec)
    params = init(discriminator, image, jnp.array([0]))
    a, b = (discriminator.apply(params, image, jnp.array([y])) for y in (0, 2))
    assert a.realness != b.realness
    np.testing.assert_array_equal(a.class_logits, b.class_logits)  # the classifier must not be told the answer


def test_kl_is_the_closed_form():
    posterior = Posterior(jnp.array([[1.0, -2.0]]), jnp.log(jnp.array([[0.5, 3.0]])))
    want = 0.5 * (0.5 + 1 - 1 - np.log(0.5)) + 0.5 * (3 + 4 - 1 - np.log(3))
    assert float(posterior.kl_to_prior()[0]) == pytest.approx(want, rel=1e-5)
    samples = jax.vmap(posterior.sample)(jax.random.split(jax.random.key(0), 20000))
    np.testing.assert_allclose(samples.mean(0)[0], [1, -2], atol=0.05)
    np.testing.assert_allclose(samples.var(0)[0], [0.5, 3], rtol=0.05)


@pytest.mark.parametrize("image_size", [4, 7, 30 + 1, 100])
def test_sizes_that_no_doubling_reaches_are_refused(image_size):
    with pytest.raises(ValueError, match=str(image_size)):
        base_and_stages(image_size)


def test_convolution_of_an_upsampled_map_needs_no_upsampled_map():
    x = jax.random.normal(jax.random.key(0), (5, 3, 4, 2))
    params = Conv(6).init(jax.random.key(1), upsample(x))
    chex.assert_trees_all_equal_shapes(params, UpsamplingConv(6).init(jax.random.key(1), x))

    def loss(f):
        return jax.value_and_grad(lambda p, x: jnp.sum(jnp.sin(3 * f(p, x))), argnums=(0, 1))(params, x)

    got, want = loss(UpsamplingConv(6).apply), loss(lambda p, x: Conv(6).apply(p, upsample(x)))
    chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-4)


NETWORKS = [
    (Generator, (jnp.ones((1, 6)), jnp.array([1]))),
    (Discriminator, (jnp.ones((1, 8, 8, 1)), jnp.array([1]))),
]


@pytest.mark.parametrize(("network", "inputs"), NETWORKS)
def test_both_convolutions_have_the_same_parameters_and_gradients_and_are_recognised(network, inputs, monkeypatch):
    module = network(ImageSpec(8, 1, 3), 4, 8)

    def loss_traced_anew():
        def loss(params, example, key):
            outputs = module.apply(params, *(x[None] for x in example), rngs={"noise": key})
            return sum(jnp.sum(jnp.sin(3 * x)) for x in jax.tree.leaves(outputs)), None

        return loss

    example, key = jax.tree.map(lambda x: x[0], inputs), jax.random.key(3)
    found = {}
    for choice in ("cpu", "xla"):
        monkeypatch.setenv(VARIABLE, choice)
        loss, params = loss_traced_anew(), init(module, *inputs)
        traced = str(jax.make_jaxpr(loss)(params, example, key))
        assert ("convolve[" in traced) == (choice == "cpu")
        assert ("conv_general_dilated[" in traced) == (choice == "xla")
        plan = clipping_plan(loss, params, example, key)
        kernels = {path: how for path, how in plan.items() if "Conv" in path and "kernel" in path}
        upsampled = [path for path in kernels if "Block" in path and "Conv_1" in path] if choice == "cpu" else []
        assert all(how == "patches" for path, how in kernels.items() if path not in upsampled), kernels
        found[choice] = params, jax.jit(jax.grad(loss, has_aux=True))(params, example, key)[0]
    chex.assert_trees_all_equal(found["cpu"][0], found["xla"][0])
    chex.assert_trees_all_close(found["cpu"][1], found["xla"][1], rtol=1e-4, atol=1e-5)


def test_a_convolution_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "flax")
    with pytest.raises(UserError, match="EFSGD_JAX_CONVOLUTION is 'flax'"):
        convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), 1, ((1, 1), (1, 1)))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "SAME"},
        {"padding": "VALID", "strides": 2},
        {"strides": (2, 1)},
        {"kernel_size": (1, 1), "strides": 2},
        {"feature_group_count": 2},
        {"kernel_dilation": 2},
        {"input_dilation": 2, "padding": 1},
        {"precision": "highest"},
        {"kernel_size": (3,)},
    ],
    ids=str,
)
def test_every_layer_of_flax_may_use_our_convolution(options):
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
    options = {"features": 6, "kernel_size": (3, 3), **options}
    reference, layer = nn.Conv(**options), nn.Conv(**options, conv_general_dilated_cls=lambda: conv_general_dilated)
    params = reference.init(jax.random.key(1), x)
    np.testing.assert_allclose(layer.apply(params, x), reference.apply(params, x), rtol=1e-5, atol=1e-5)
