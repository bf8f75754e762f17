"""``efsgd plan``: the cost of a step on devices that are not there."""

import json
import os
import subprocess
import sys

import pytest

from efsgd_jax.cli.plan import main
from efsgd_jax.training.step_cost import exchanged_bytes

SMALL = [
    "--config=preset:digits", "--shape=8x8x1", "--dataset_size=1400", "--config.train.expected_batch_size=64",
    "--config.method.width=4", "--config.method.blocks=1", "--config.method.microbatch_size=8",
]  # fmt: skip


def test_work_is_divided_and_what_devices_exchange_does_not_grow_with_them():
    command = [sys.executable, "-m", "efsgd_jax", "plan", *SMALL, "--devices=1,2,8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    one, two, eight = json.loads(done.stdout)
    assert one["exchanged"] == {}
    assert [two["rows"], eight["rows"]] == [-(-one["rows"] // n) for n in (2, 8)]
    assert one["operations"] > 1.5 * two["operations"] > 2 * eight["operations"]
    assert two["exchanged"]["all-reduce"] == eight["exchanged"]["all-reduce"] > 0
    assert one["held"] >= 1400 * 64


def test_bytes_of_collectives_are_read_from_the_program():
    text = """
  %a = f32[10,3]{1,0} all-reduce(f32[10,3]{1,0} %x), replica_groups={}
  %b = (f32[2]{0}, pred[4]{0}) all-gather-start(%y), dimensions={0}
  %c = f32[7]{0} add(%d, %e)
"""
    assert exchanged_bytes(text) == {"all-reduce": 120, "all-gather": 12}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--devices=0"], "numbers of at least 1"),
        (["--devices=9999"], "at most 1024"),
        (["--shape=8x9x1"], "square images"),
        (["--devices=2", "--config.method.name=born_machine"], "trains on one device"),
        (["--devices=1", "--config.method.name=gaussian_mixture"], "no steps of DP-SGD"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, monkeypatch, flags, words):
    for name in ("XLA_FLAGS", "JAX_PLATFORMS"):  # the command sets them for its own process
        monkeypatch.setenv(name, os.environ.get(name, ""))
    assert main([*SMALL[:3], *flags]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
