"""The compiler's options: they are known to it, change nothing but the speed, and give way to the user's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.training import compilation


@pytest.fixture
def options(monkeypatch):
    """``compiler_options``, not yet asked, without what these tests are run with."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv(compilation.EFFORT_VARIABLE, raising=False)
    compilation.compiler_options.cache_clear()
    yield compilation.compiler_options
    compilation.compiler_options.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU backend")
def test_convolutions_are_not_left_to_one_thread_and_are_the_same(options):
    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # Large enough for XLA to hand it over: with jaxlib 0.10.2 the default program has a __ynn_fusion.
    x = jax.random.normal(jax.random.key(0), (32, 7, 7, 32))
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 32, 64))
    program = jax.jit(convolution, compiler_options=options()).lower(x, kernel).compile()
    assert "__ynn_fusion" not in program.as_text()
    np.testing.assert_allclose(program(x, kernel), jax.jit(convolution)(x, kernel), atol=1e-3)


def test_an_option_that_xla_does_not_know_is_left_out(options, monkeypatch):
    monkeypatch.setattr(compilation, "YNNPACK", "xla_cpu_no_such_option")
    assert set(options()) == {compilation.EFFORT}


def test_the_users_flags_go_first_and_a_variable_sets_the_effort(options, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{compilation.YNNPACK}=LIBRARY_FUSION_TYPE_DOT")
    assert set(options()) == {compilation.EFFORT}
    compilation.compiler_options.cache_clear()
    monkeypatch.setenv(compilation.EFFORT_VARIABLE, "0")
    assert options() == {compilation.EFFORT: 0}
    monkeypatch.delenv(compilation.EFFORT_VARIABLE)
    monkeypatch.setenv("XLA_FLAGS", f"--{compilation.YNNPACK}=X --{compilation.EFFORT}=2")
    compilation.compiler_options.cache_clear()
    assert options() == {}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU backend")
def test_a_softmax_of_a_product_with_zeros_is_a_number_however_often_it_is_compiled(options):
    x = np.random.default_rng(0).uniform(size=(6001, 226)).astype(np.float32)
    for i in range(6):  # with XLA's defaults four of five compilations give NaN

        def error(x, i=i):
            return jax.nn.softmax((0.04 + i) * x @ jnp.zeros((226, 2))) - jax.nn.one_hot(0, 2)

        found = jax.jit(error, compiler_options=options())(x)
        np.testing.assert_allclose(found, np.tile([-0.5, 0.5], (6001, 1)))
