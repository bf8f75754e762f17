"""Renders templates to pages: single HTML files without scripts, which load no other files and need no network."""

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@functools.cache
def _environment() -> Environment:
    """The environment of the templates: text is escaped unless marked ``safe``, and undefined names are errors."""
    loader = PackageLoader("efsgd_jax.reports")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A global instead of an include, because the CSS must not be parsed as a template.
    environment.globals["style"] = loader.get_source(environment, "style.css")[0]
    return environment


def render(template: str, **data: Any) -> str:
    """Renders ``template``, a file in ``templates/``, with ``data``."""
    return _environment().get_template(template).render(data)
