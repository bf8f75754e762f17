"""Which data source reads a path, by the names of the files that are there."""

from pathlib import Path

from efsgd_jax.data.prepared import DESCRIPTION
from efsgd_jax.errors import UserError

# Name that is in a directory -> source.
MARKS = {
    "list_eval_partition.txt": "celeba",
    "list_eval_partition.csv": "celeba",
    "Eval": "celeba",
    DESCRIPTION: "prepared",
}


def guess_source(path: str | Path) -> str:
    """The name of the source: ``npz``, ``parquet``, ``celeba``, ``prepared``, ``idx`` or ``folder``.

    Raises:
      UserError: there is no such path, or no source reads such a file.

    Examples:
      >>> guess_source(".")
      'folder'
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"no such file or directory: {root}; name the file or directory of the images")
    if root.is_file():
        known = {".npz": "npz", ".parquet": "parquet", ".zip": "folder"}
        if root.suffix.lower() not in known:
            raise UserError(f"{root} is a file with another ending than {', '.join(known)}; docs/data.md lists layouts")
        return known[root.suffix.lower()]
    names = {entry.name for entry in root.iterdir()}
    marked = next((source for name, source in MARKS.items() if name in names), None)
    if marked:
        return marked
    if any("images-idx3-ubyte" in name for name in names):
        return "idx"
    lists = {"metadata.parquet"}
    if any(file.name not in lists for file in root.rglob("*.parquet")):
        return "parquet"
    return "folder"
