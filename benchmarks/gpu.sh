#!/usr/bin/env bash
# What the project wants to know from an accelerator, in at most 9 minutes; results below $OUT (default: gpu_results).
# Also runs where there is none, as a test of itself. A checkout on PYTHONPATH is enough; pytest is used if it is there.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD" OUT="${OUT:-gpu_results}" PYTHON="${PYTHON:-python3}"
mkdir -p "$OUT"
deadline=$(($(date +%s) + ${LIMIT_SECONDS:-520}))
left() { echo $((deadline - $(date +%s))); }

"$PYTHON" -c 'import jax; print(jax.__version__, jax.devices())' | tee "$OUT/devices.txt"

# The same bits of noise and the same sums as on a CPU, for one key.
if "$PYTHON" -c 'import pytest, hypothesis' 2>/dev/null; then
  XLA_FLAGS="" timeout "$(left)" "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_noise.py tests/test_exact_sums.py \
    tests/test_rounded_rows.py tests/test_clipping.py 2>&1 | tail -n 15 | tee "$OUT/tests.txt"
fi

# What noise on a lattice and exact sums cost, beside float32.
[ "$(left)" -gt 60 ] && timeout "$(left)" "$PYTHON" benchmarks/arithmetic_cost.py --rounds=3 \
  --parameters 100000 1000000 10000000 --out="$OUT/arithmetic_cost.json" | tee "$OUT/arithmetic_cost.txt"

# The private step, beside a plain one.
[ "$(left)" -gt 60 ] && timeout "$(left)" "$PYTHON" benchmarks/training_step.py --rounds=3 \
  --baselines=plain:0,ghost:0,ghost:256,vmap:256 --out="$OUT/training_step.json" | tee "$OUT/training_step.txt"
exit 0
