"""The side of a network's smallest feature map, and how often it has to be doubled to give the image size."""

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError


def base_and_stages(image_size: int) -> tuple[int, int]:
    """``image_size = base * 2**stages`` with the smallest base of at least 4: 8 = 4 * 2, 28 = 7 * 4, 64 = 4 * 16.

    Raises:
      ValueError: there is no such base of at most 16, or ``stages`` would be 0.
    """
    base, stages = image_size, 0
    while base % 2 == 0 and base >= 8:
        base, stages = base // 2, stages + 1
    if stages == 0 or not 4 <= base <= 16:
        raise ValueError(
            f"image_size {image_size} is not a number from 4 to 16 doubled one or more times; use one such as 8, 16, "
            "28, 32, 48, 64 or 128."
        )
    return base, stages


def check_image_size(spec: ImageSpec) -> None:
    """Raises ``UserError`` for images whose size is not accepted by ``base_and_stages``."""
    try:
        base_and_stages(spec.image_size)
    except ValueError as error:
        raise UserError(f"{error} Set --config.data.image_size") from error


def stage_widths(width: int, stages: int, max_width: int) -> list[int]:
    """Channels from the finest feature map to the coarsest: ``width``, doubled per stage, at most ``max_width``."""
    return [min(width * 2**i, max_width) for i in range(stages + 1)]
