"""How alike two pictures are: PSNR and SSIM, for each of a batch."""

import jax
import jax.numpy as jnp

# Side of SSIM's window, and its constants for colours in [0, 1] (Wang et al., 2004).
WINDOW, C1, C2 = 7, 0.01**2, 0.03**2


def psnr(a: jax.Array, b: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, float32 ``[N]``, of pictures ``[N, H, W, C]`` in [0, 1]; equal ones have 100.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.protect.likeness import psnr
      >>> print(psnr(jnp.zeros((1, 8, 8, 3)), jnp.full((1, 8, 8, 3), 0.1)).round(3))
      [20.]
    """
    return -10 * jnp.log10(jnp.mean(jnp.square(a - b), axis=(1, 2, 3)) + 1e-10)


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Structural similarity, float32 ``[N]``, of pictures ``[N, H, W, C]`` in [0, 1]; equal ones have 1.

    The mean over all windows of 7x7 pixels that lie inside a picture, and over channels; variances are those of the
    window's pixels, divided by their number. Pictures have at least 7 pixels on a side.

    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.protect.likeness import ssim
      >>> x = jnp.linspace(0, 1, 64).reshape(1, 8, 8, 1)
      >>> print(ssim(x, x)[0].round(3), ssim(x, 1 - x)[0] < 0)
      1.0 True
    """

    def mean(x: jax.Array) -> jax.Array:
        window = (1, WINDOW, WINDOW, 1)
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), "VALID") / WINDOW**2

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    index = (2 * ma * mb + C1) * (2 * both + C2) / ((ma * ma + mb * mb + C1) * (va + vb + C2))
    return jnp.mean(index, axis=(1, 2, 3))
