"""The compiler's options: they are known to it, change nothing but the speed, and give way to the user's."""

import jax
import numpy as np
import pytest

from efsgd_jax.training import compilation


@pytest.fixture
def options(monkeypatch):
    """``compiler_options`` as on a CPU with several cores, not yet asked."""
    monkeypatch.setattr(compilation, "cores", lambda: 2)
    monkeypatch.setenv("XLA_FLAGS", "")
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


@pytest.mark.parametrize("reason", ["one core", "the user's flags"])
def test_one_core_and_the_users_flags_keep_the_default_of_xla(options, monkeypatch, reason):
    if reason == "one core":
        monkeypatch.setattr(compilation, "cores", lambda: 1)
    else:
        monkeypatch.setenv("XLA_FLAGS", f"--{compilation.YNNPACK}=LIBRARY_FUSION_TYPE_DOT")
    assert set(options()) == {compilation.EFFORT}
    monkeypatch.setenv("XLA_FLAGS", f"--{compilation.YNNPACK}=X --{compilation.EFFORT}=2")
    compilation.compiler_options.cache_clear()
    assert options() == {}
