"""The pages of config keys, from the dataclasses and rules of the configuration: python docs/make_config_keys.py"""

from pathlib import Path
from typing import Any

from efsgd_jax.config_keys import Key, config_keys, ranges
from efsgd_jax.synthesizers import method_names

HERE = Path(__file__).parent
MADE = "`python docs/make_config_keys.py` makes this page from the source; it is not edited by hand."
INDEX = """# Config keys

{made}

The page of each method states the type, default, range and meaning of its keys, and [one page](config_keys/common.md)
those of the keys that all methods share:

{links}

In a terminal, `efsgd train --help=TEXT` explains the keys whose name contains TEXT. The following table has the
keys that several methods have, unless all have them alike, with the defaults of each method; a cell is empty where the
method does not have the key.

{table}
"""
METHOD = """# Config keys of `{method}`

{made}

`--config.KEY=VALUE` changes a key, and `--config.method.name={method}` chooses this method; see
[configs](../configs.md). Ranges hold for the default values of other keys. The defaults of the methods are
[side by side](../config_keys.md). Keys that all methods share have [a page of their own](common.md).

{tables}
"""
COMMON = """# Config keys of all methods

{made}

`--config.KEY=VALUE` changes a key; see [configs](../configs.md). Every method has these keys, with the same default and
meaning. The other keys of a method are on its own page; the defaults of the methods are
[side by side](../config_keys.md).

{tables}
"""


def as_table(*rows: tuple[str, ...]) -> str:
    """The first row is the head."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    head, *body = (f"| {' | '.join(row)} |" for row in escaped)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *body])


def keys_of(method: str) -> list[Key]:
    """All keys of a method, those of a dictionary one by one, each with its whole range."""
    allowed, found = ranges(method), []
    for key in config_keys(method):
        values = {f".{k}": v for k, v in key.default.items()} if isinstance(key.default, dict) else {"": key.default}
        for part, value in values.items():
            name = f"{key.name}{part}"
            found.append(Key(name, type(value).__name__, value, allowed.get(name, key.must_be), key.meaning))
    return found


def shown(default: Any) -> str:
    return "empty" if default == "" else f"`{default}`"


def group_of(name: str) -> str:
    return name.partition(".")[0]


def tables_of(keys: list[Key]) -> str:
    """A table for each group of keys."""
    head = ("key", "type", "default", "range", "meaning")
    tables = []
    for group in dict.fromkeys(group_of(key.name) for key in keys):
        rows = [
            (f"`{k.name}`", k.kind, shown(k.default), k.must_be, k.meaning.replace("``", "`"))
            for k in keys
            if group_of(k.name) == group
        ]
        tables.append(f"## `config.{group}`\n\n{as_table(head, *rows)}")
    return "\n\n".join(tables)


def index_page(keys: dict[str, list[Key]]) -> str:
    defaults = {method: {key.name: shown(key.default) for key in found} for method, found in keys.items()}
    names = sorted(dict.fromkeys(name for found in defaults.values() for name in found), key=group_of)
    rows = [(f"`{name}`", *(found.get(name, "") for found in defaults.values())) for name in names]
    several = [row for row in rows if sum(map(bool, row[1:])) > 1 and len(set(row[1:])) > 1]
    links = "\n".join(f"- [`{method}`](config_keys/{method}.md)" for method in keys)
    return INDEX.format(made=MADE, links=links, table=as_table(("key", *(f"`{method}`" for method in keys)), *several))


def pages() -> dict[str, str]:
    """Path below docs/ -> text."""
    keys = {method: keys_of(method) for method in method_names()}
    first, *others = keys.values()
    common = [key for key in first if all(key in found for found in others)]
    own = {method: [key for key in found if key not in common] for method, found in keys.items()}
    return {
        "config_keys.md": index_page(keys),
        "config_keys/common.md": COMMON.format(made=MADE, tables=tables_of(common)),
        **{
            f"config_keys/{method}.md": METHOD.format(made=MADE, method=method, tables=tables_of(found))
            for method, found in own.items()
        },
    }


if __name__ == "__main__":
    (HERE / "config_keys").mkdir(exist_ok=True)
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
