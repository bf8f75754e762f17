"""Shared fixtures: one tiny run, trained once; compiled programs shared with the processes that tests start."""

import atexit
import functools
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Before JAX is imported. Most of a tiny run's time is compilation, of the same few programs: compile them once, and do
# not optimise what runs for a moment only. What was compiled is kept beside pytest's own cache for the next run of the
# suite; nothing is left in the user's.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # most are small, and there are many
if "EFSGD_JAX_DATA" not in os.environ:  # with several workers, the first process makes it for all
    os.environ["EFSGD_JAX_DATA"] = tempfile.mkdtemp(prefix="efsgd_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["EFSGD_JAX_DATA"], ignore_errors=True)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1 --xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault("EFSGD_JAX_COMPILER_EFFORT", "0")  # of training steps, which take most of the compiler's time
if subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], capture_output=True).returncode:
    os.environ["XLA_FLAGS"] = ""  # XLA ends a process for a flag that it does not know

import jax
import pytest

from efsgd_jax import default_config, fit
from efsgd_jax.privacy import DpSgdMechanism
from efsgd_jax.privacy.accounting import COARSE
from efsgd_jax.privacy.clipped_sum import sensitivity_of

# A plugin of pytest may have imported JAX before its variables were set above.
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs", float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
)
# Tracing makes millions of small objects, which the collector of cycles would look through again and again.
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def coarse_reports():
    """An upper bound as well, by 0.01%, and ten times as fast: every run has a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("efsgd_jax.privacy.ledger.FINE", COARSE)
        yield


@pytest.fixture(scope="session")
def small_config():
    config = default_config()
    config.train.update(steps=6, expected_batch_size=32, log_every=2, grid_every=4)
    config.method.update(
        latent=4, generator_width=4, discriminator_width=4, encoder_width=4, max_width=8, features=8,
        generated_batch_size=8, microbatch_size=32,
    )  # fmt: skip
    return config.lock()


@pytest.fixture(scope="session")
def finished_run(small_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return fit(small_config, workdir, progress=False)


EPSILON = functools.cache(DpSgdMechanism.epsilon)


@pytest.fixture
def training_epsilon_computed_once(monkeypatch):
    """``check`` computes it whenever it is asked, for seconds; here all runs have the same."""

    def cached(self, *args, **kwargs):
        hashable = self._replace(l2_norm_clip=float(sensitivity_of(self.l2_norm_clip)))  # the same event
        return EPSILON(hashable, *args, **kwargs)

    monkeypatch.setattr(DpSgdMechanism, "epsilon", cached)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="slow tests as well")
    parser.addoption(
        "--architectures", type=int, help="random losses on which ghost clipping is tested: 1, or 12 of all"
    )
    parser.addoption("--configurations", type=int, help="random configurations that are trained: 2, or 4 of all")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: run by `make test-all` only")
    config.addinivalue_line("markers", "accelerator: the guarantee, also to be tested on a GPU or TPU")
    few, many = {"architectures": 1, "configurations": 2}, {"architectures": 12, "configurations": 4}
    for name, count in (many if config.getoption("all") else few).items():
        if getattr(config.option, name) is None:
            setattr(config.option, name, count)


# What must hold on every backend, whatever its arithmetic: noise, sums, clipping and feedback.
ON_EVERY_BACKEND = {
    "test_noise", "test_exact_sums", "test_rounded_rows", "test_one_shot", "test_clipping", "test_ghost",
    "test_feedback", "test_feedback_modes", "test_sampling",
}  # fmt: skip


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.module.__name__ in ON_EVERY_BACKEND:
            item.add_marker(pytest.mark.accelerator)
    if config.getoption("all"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)


def pytest_terminal_summary(terminalreporter):
    if not terminalreporter.config.getoption("all"):
        terminalreporter.write_line("Slow tests are left out here; `make test-all` runs them (pytest --all).")


def pytest_generate_tests(metafunc):
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", range(metafunc.config.getoption("architectures")))
    if "lot" in metafunc.fixturenames:
        whole, rest = divmod(metafunc.config.getoption("configurations"), 100)
        metafunc.parametrize("lot", list(enumerate([100] * whole + [rest] * (rest > 0))), ids=str)
