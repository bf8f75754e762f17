"""Opacus' part of ``arithmetic_peers.py``, which runs it in an environment with Opacus; prints JSON."""

import json

import opacus
import torch
from opacus.optimizers.optimizer import DPOptimizer, _generate_noise


def clipped(rows: torch.Tensor, clip: float) -> torch.Tensor:
    """The sum as ``DPOptimizer`` makes it."""
    parameter = torch.nn.Parameter(torch.zeros(rows.shape[1]))
    optimizer = DPOptimizer(
        torch.optim.SGD([parameter], lr=1.0), noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=1
    )
    parameter.grad_sample = rows
    optimizer.clip_and_accumulate()
    return parameter.summed_grad


def low_bits(secure_mode: bool) -> dict[str, float]:
    shares = {}
    for value in (0.0, 1.0):
        reference = torch.full((1_000_000,), value)
        out = (reference + _generate_noise(0.5, reference, secure_mode=secure_mode)).double()
        fine = (out.abs() < 0.25) & (out * 2**25 != torch.round(out * 2**25))
        shares[f"of {value:g}"] = float(fine.double().mean())
    return shares


def sums_that_move() -> float:
    step = 2.0**-12 * 1.004
    one = torch.cat([torch.ones(4096, 4), torch.full((4200, 4), step)])
    blank = one.clone()
    blank[0] = 0.0
    return float((clipped(one, 2.0).double() - clipped(blank, 2.0).double()).norm()) / 2.0


def main() -> None:
    torch.manual_seed(0)
    rows = 3 * torch.randn(2000, 1, 300)
    bad = torch.ones(4, 3)
    bad[1, 2] = float("nan")
    found = {
        "version": f"{opacus.__version__}, torch {torch.__version__}",
        "tail": "5.77, of a 24-bit uniform (torch's CPU kernel, read)",
        "low_bits": {"default": low_bits(False), "secure_mode": low_bits(True)},
        "sums_that_move": sums_that_move(),
        "clipped_rows_are_longer": sum(float(clipped(r, 1.0).double().norm()) > 1 for r in rows) / len(rows),
        "not_a_number": bool(clipped(bad, 1.0).isnan().any()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
