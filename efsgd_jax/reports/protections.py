"""The section on protections other than differential privacy of images, if a run used any."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from efsgd_jax.files import PROTECTION_MARK, read_json
from efsgd_jax.reports.sections import Section

# Config keys that name images which may have been written by ``efsgd protect``.
IMAGES = (("data", "path", "private"), ("public", "path", "public"))
OF_PRIVATE = (
    ", which is no differential privacy. The guarantee of this run is for them, as they were read; it is one for the "
    "originals only if each of them was changed without regard to the others."
)
OF_PUBLIC = "; they are public here all the same."


def protections_section(config: Mapping[str, Any]) -> Section | None:
    """What else protects, or does not, than the guarantee of the run; None if there is nothing to say.

    Args:
      config: the configuration, as a dictionary of groups.
    """
    found = [*_protected_images(config), *_region(config), *_guidance(config)]
    if not found:
        return None
    return Section("other-protections", "Other protections", "protections.html", {"sentences": found})


def _protected_images(config: Mapping[str, Any]) -> Iterator[str]:
    for group, key, which in IMAGES:
        path = config.get(group, {}).get(key) or ""
        for place in [Path(path), *Path(path).parents] if path else []:
            mark = place / PROTECTION_MARK
            if mark.is_file():
                kind = read_json(mark).get("protection")
                wrote = f"The {which} images were written by `efsgd protect {kind}`"
                yield wrote + (OF_PRIVATE if which == "private" else OF_PUBLIC)
                break


def _region(config: Mapping[str, Any]) -> Iterator[str]:
    region = config.get("privacy", {}).get("region") or ""
    if region:
        yield (
            f"Only the pixels of the region {region} of each image are protected. Everything else of the images, their "
            "labels, and who is in the data are public; neither images nor persons have a guarantee."
        )


def _guidance(config: Mapping[str, Any]) -> Iterator[str]:
    threshold = float(config.get("method", {}).get("guidance_threshold", 0.0))
    if threshold > 0:
        yield (
            f"Samples are drawn by guidance that turns away from a class whose magnitude is above {threshold:g}. This "
            "changes samples, and neither the generator nor epsilon: whoever has the generator can draw without it."
        )
