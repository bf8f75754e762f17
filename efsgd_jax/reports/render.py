"""Templates to pages: one HTML file each, without scripts, links to other files or a network."""

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@functools.cache
def _environment() -> Environment:
    """All text is escaped, unless a template says ``safe``; a name that the data lack is an error."""
    loader = PackageLoader("efsgd_jax.reports")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # As a global, not as an include: CSS is no template.
    environment.globals["style"] = loader.get_source(environment, "style.css")[0]
    return environment


def render(template: str, **data: Any) -> str:
    """The page that ``template``, a file in ``templates/``, makes of ``data``."""
    return _environment().get_template(template).render(data)
