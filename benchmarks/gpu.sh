#!/usr/bin/env bash
# What the project wants to know from an accelerator, in at most 9 minutes; results below $OUT (default: gpu_results).
#
#   benchmarks/gpu.sh --part=images --data=fashion_mnist=fashion_mnist.npz --epsilon=10   trains and scores one diffusion
#   benchmarks/gpu.sh --part=speed                                                       the same bits, and the costs
#
# --tiny tries either part in a minute on any machine. A checkout on PYTHONPATH is enough, without a network; pytest is
# used if it is there. Compiled programs are kept in $OUT/cache; a command that was killed goes on where it was.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD" OUT="${OUT:-gpu_results}" PYTHON="${PYTHON:-python3}"
part=images tiny="" rest=()
for argument in "$@"; do
  case "$argument" in
    --part=images | --part=speed) part="${argument#--part=}" ;;
    --tiny) tiny=yes ;;
    --data=* | --epsilon=* | --option=* | --held_out) rest+=("$argument") ;;
    *)
      echo "error: $argument is unknown; see the head of $0" >&2
      exit 2
      ;;
  esac
done
mkdir -p "$OUT"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$OUT/cache}"
deadline=$(($(date +%s) + ${LIMIT_SECONDS:-520}))
left() { echo $((deadline - $(date +%s))); }

"$PYTHON" -c 'import jax; print(jax.__version__, jax.devices())' | tee "$OUT/devices.txt"

if [ "$part" = images ]; then
  timeout "$(left)" "$PYTHON" benchmarks/gpu_images.py ${tiny:+--tiny} ${rest[@]+"${rest[@]}"} --out="$OUT/images" 2>&1 |
    tee "$OUT/images.txt"
  exit
fi

# The same bits of noise and the same sums as on a CPU, for one key.
if [ -z "$tiny" ] && "$PYTHON" -c 'import pytest, hypothesis' 2>/dev/null; then
  XLA_FLAGS="" timeout "$(left)" "$PYTHON" -m pytest -q -p no:cacheprovider -m accelerator \
    tests 2>&1 | tail -n 15 | tee "$OUT/tests.txt"
fi

# What noise on a lattice and exact sums cost, beside float32.
rows=60000 sizes=(100000 1000000 10000000) rounds=3 config=fmnist baselines=plain:0,ghost:0,ghost:256,vmap:256
[ -n "$tiny" ] && rows=500 sizes=(1000) rounds=1 config=digits baselines=plain:0,ghost:0
[ "$(left)" -gt 60 ] && timeout "$(left)" "$PYTHON" benchmarks/arithmetic_cost.py --rounds=$rounds \
  --rows=$rows --parameters "${sizes[@]}" --out="$OUT/arithmetic_cost.json" | tee "$OUT/arithmetic_cost.txt"

# The private step, beside a plain one.
[ "$(left)" -gt 60 ] && timeout "$(left)" "$PYTHON" benchmarks/training_step.py --rounds=$rounds \
  --config="configs/efsgd_$config.py" --baselines="$baselines" --out="$OUT/training_step.json" | tee "$OUT/training_step.txt"

# Clipped gradients of three networks by batch size and dtype, shards, and the papers' configs, row by row. PyTorch needs
# memory beside JAX.
[ "$(left)" -gt 60 ] && XLA_PYTHON_CLIENT_PREALLOCATE=false timeout "$(left)" "$PYTHON" benchmarks/gpu_speed.py \
  ${tiny:+--tiny} --seconds=$(($(left) - 40)) --out="$OUT/speed.json" 2>&1 | tee "$OUT/speed.txt"
exit 0
