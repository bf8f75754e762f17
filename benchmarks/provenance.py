"""What a committed result must say about itself: command, date, machine, commit, versions."""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax


def provenance() -> dict[str, str]:
    """Where and how this process runs, for the head of a results file. No host or user names."""
    root = Path(__file__).parents[1]
    git = ["git", "-C", str(root)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "efsgd_jax", "configs"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "command": " ".join(
            ["python", Path(sys.argv[0]).resolve().relative_to(root).as_posix(), *map(_here, sys.argv[1:])]
        ),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": (commit or "unknown") + (" with uncommitted changes" if changed else ""),
        "machine": f"{os.cpu_count()} x {_cpu()}, {jax.devices()[0].device_kind}",
        "caches": _caches(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "flax", "optax", "dp-accounting")},
    }


def _here(argument: str) -> str:
    """Without the directories of this machine: of a path out of the project its name is left."""
    flag, equals, value = argument.rpartition("=")
    outside = value.startswith(("/", "..", "~"))
    return f"{flag}{equals}{Path(value).name if outside else value}"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _caches() -> str:
    """Of the first core, such as "L1 32K, L2 512K, L3 16384K"; empty where the system does not tell."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            sizes[f"L{level}"] = size
    return ", ".join(f"{level} {size}" for level, size in sizes.items())
