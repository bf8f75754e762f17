"""The audit in full: every game, every mutant, a training run with canaries, and the images of a finished run.

    python benchmarks/audit.py --out=benchmarks/results/audit.json

About 10 minutes on 2 CPU cores. Interrupted, the same command goes on where it was.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from provenance import provenance

from efsgd_jax import default_config, fit, fresh_key
from efsgd_jax.audit import Row, audit, sound_games, to_table
from efsgd_jax.audit.canaries import audit_run
from efsgd_jax.audit.membership import audit_release
from efsgd_jax.audit.mutants import mutants
from efsgd_jax.audit.white_box import Fault, attack_mutants, mutants_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200_000, help="runs of each game with the canary, and without")
    parser.add_argument("--delta", type=float, default=1e-2)
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out, here = Path(args.out), provenance()
    record = json.loads(out.read_text()) if out.is_file() else {**here, "games": {}, "mutants": {}}
    if (record["command"], record["commit"]) != (here["command"], here["commit"]):
        print(f"error: {out} is of commit {record['commit']}, {record['command']}; use another --out", file=sys.stderr)
        return 2

    def save() -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")

    games = sound_games()
    for game in games:
        if game.name not in record["games"]:
            (row,) = audit(
                [game], trials=args.trials, delta=args.delta, key=fresh_key(), significance=0.05 / len(games)
            )
            record["games"][game.name] = row._asdict()
            save()
    rows = [Row(**row) for row in record["games"].values()]
    print(to_table(rows) + "\n", flush=True)

    faults = mutants()
    for mutant in faults:
        if mutant.name not in record["mutants"]:
            (fault,) = attack_mutants(
                trials=args.trials // 4, delta=args.delta, key=fresh_key(), significance=0.05 / len(faults),
                only=mutant.name,
            )  # fmt: skip
            record["mutants"][mutant.name] = {"sound": fault.sound._asdict(), "broken": fault.broken._asdict()}
            save()
    found = [Fault(name, Row(**f["sound"]), Row(**f["broken"])) for name, f in record["mutants"].items()]
    print(mutants_table(found) + "\n", flush=True)

    if "run with canaries" not in record:
        record["run with canaries"] = audit_run(default_config(), canaries=400)._asdict()
        save()
    print(json.dumps(record["run with canaries"], indent=1), flush=True)
    if "released images" not in record:
        with tempfile.TemporaryDirectory() as workdir:
            fit(default_config(), workdir)
            record["released images"] = audit_release(workdir)._asdict()
        save()
    print(json.dumps(record["released images"], indent=1))
    refuted = [row.name for row in rows if row.refuted] + [f.name for f in found if not f.broken.refuted]
    if refuted:
        print(f"error: refuted or missed: {'; '.join(refuted)}", file=sys.stderr)
    return bool(refuted)


if __name__ == "__main__":
    sys.exit(main())
