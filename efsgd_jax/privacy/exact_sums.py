"""Exact sums of rows of whole numbers: the same for any order of rows, chunks, devices and backends.

Float32 addition is not associative. Adding one row changes which rows are summed in the same block, so that every
block may be rounded differently, and a sum can change by many times the row's norm (Casacuberta et al., 2022, arXiv
2207.10635). Here rows hold whole numbers, which are split into digits, and the digits are multiplied as matrices. A
digit has at most 8 significant bits, which every number format of a matrix unit can represent (bfloat16, TF32,
float32). A block has so few rows that every partial sum is at most 2^24, up to which float32 represents all integers,
so that the order of summation does not matter. The sums of blocks are added as integers.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.noise import LIMB_BITS, Integers, plus

# Significant bits of a digit: as many as the number formats of all matrix units represent.
DIGIT_BITS = 8
# Absolute values of the entries of rows are at most 2^MAX_BITS.
MAX_BITS = 15
# Sums of integers in float32 are exact up to 2^EXACT_BITS.
EXACT_BITS = 24
# Largest number of blocks whose sums, each at most 2^24, are added in an int32 without overflow.
MAX_BLOCKS = 64


def exact_product(a: jax.Array, b: jax.Array, bits_a: int, bits_b: int) -> Integers:
    """The exact product ``a^T b`` of matrices of whole numbers.

    Args:
      a: float32 ``[N, P]``, whole numbers with absolute values of at most ``2^bits_a``; ``bits_a`` is 0 for indicators.
      b: float32 ``[N, Q]``, whole numbers with absolute values of at most ``2^bits_b``.
      bits_a: bound for ``a``; at most ``MAX_BITS``.
      bits_b: bound for ``b``; at most ``MAX_BITS``.

    Returns:
      ``Integers`` of shape ``[P, Q]``.

    Raises:
      ValueError: more than ``MAX_BITS``, or different numbers of rows.

    Formal guarantees:
      Exact, as long as no sum is above 2^53: bitwise the same for rows in any order, in any arithmetic that multiplies
      numbers of 8 significant bits and adds integers below 2^24 exactly.
    """
    if max(bits_a, bits_b) > MAX_BITS:
        raise ValueError(f"entries of {max(bits_a, bits_b)} bits; at most {MAX_BITS} are summed.")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} rows and {len(b)} rows: each row of one belongs to a row of the other.")
    # A product of two digits is at most 2^product_bits, so that a block of this many rows sums to at most 2^24. Blocks
    # are grouped into chunks of at most MAX_BLOCKS blocks; below, ``count`` is the number of blocks in a chunk.
    product_bits = min(bits_a, DIGIT_BITS) + min(bits_b, DIGIT_BITS)
    rows = 2 ** (EXACT_BITS - product_bits)
    count = max(1, -(-a.shape[0] // rows))
    chunks = -(-count // MAX_BLOCKS)
    count = -(-count // chunks)
    rows = -(-a.shape[0] // (chunks * count)) or 1

    def in_blocks(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, chunks * count * rows - x.shape[0]), (0, 0))).reshape(chunks, count, rows, -1)

    pairs = [(i, j) for i, _ in enumerate(_digits(a[:0], bits_a)) for j, _ in enumerate(_digits(b[:0], bits_b))]

    def add_block(sums: list[jax.Array], block: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], None]:
        of_a, of_b = list(_digits(block[0], bits_a)), list(_digits(block[1], bits_b))
        parts = [jnp.matmul(of_a[i].T, of_b[j], precision=jax.lax.Precision.HIGHEST) for i, j in pairs]
        return [s + p.astype(jnp.int32) for s, p in zip(sums, parts, strict=True)], None

    nothing = jnp.zeros((a.shape[1], b.shape[1]), jnp.int32)

    def add_chunk(total: Integers, chunk: tuple[jax.Array, jax.Array]) -> tuple[Integers, None]:
        sums, _ = jax.lax.scan(add_block, [nothing] * len(pairs), chunk)
        for (i, j), s in zip(pairs, sums, strict=True):
            total = add(total, shifted(normal(s), DIGIT_BITS * (i + j)))
        return total, None

    total, _ = jax.lax.scan(add_chunk, Integers(nothing, nothing), (in_blocks(a), in_blocks(b)))
    return total


def sum_by_group(rows: jax.Array, groups: jax.Array, num_groups: int, bits: int) -> Integers:
    """The sum of the rows of each group, ``[G, D]``.

    Args:
      rows: float32 ``[N, D]``, whole numbers with absolute values of at most ``2^bits``.
      groups: int ``[N]``, the group of each row; rows whose group is not in ``0..G-1`` are left out.
      num_groups: G.
      bits: bound for ``rows``; at most ``MAX_BITS``.
    """
    return exact_product(jax.nn.one_hot(groups, num_groups), rows, 0, bits)


def squares_by_group(rows: jax.Array, groups: jax.Array, num_groups: int, bits: int) -> Integers:
    """The sum of the outer products ``r_i r_i^T`` of the rows of each group, ``[G, D, D]``.

    The rows are sorted into blocks of one group each, which is G times less work than a pass over all rows for each
    group. The order does not change the result, since the sums are exact.

    Args:
      rows: float32 ``[N, D]``, whole numbers with absolute values of at most ``2^bits``.
      groups: int ``[N]``, the group of each row; rows whose group is not in ``0..G-1`` are left out.
      num_groups: G.
      bits: bound for ``rows``; at most 8.

    Raises:
      ValueError: more than 8 bits, or ``groups`` of another shape.
    """
    if bits > DIGIT_BITS:
        raise ValueError(f"entries of {bits} bits; at most {DIGIT_BITS} are squared.")
    if groups.shape != (len(rows),):  # a single number would be broadcast to all places, and its row counted N times
        raise ValueError(f"{len(rows)} rows and groups of shape {groups.shape}: each row has one.")
    inside = (groups >= 0) & (groups < num_groups)
    rows, groups = jnp.where(inside[:, None], rows, 0.0), jnp.where(inside, groups, 0)
    if num_groups == 1:
        one = exact_product(rows, rows, bits, bits)
        return Integers(one.high[None], one.low[None])
    count, size = rows.shape
    # Rows of a block: so few that the float32 sums of their products, each at most 2^(2 bits), are exact.
    height = min(2 ** (EXACT_BITS - 2 * bits), 256, max(1, count // num_groups))
    blocks = count // height + num_groups  # enough for all groups: each has at most one block that is not full
    order = jnp.argsort(groups)
    sizes = jnp.bincount(groups, length=num_groups)
    needed = -(-sizes // height)
    first_block, first_row = jnp.cumsum(needed) - needed, jnp.cumsum(sizes) - sizes
    group = groups[order]
    place = first_block[group] * height + jnp.arange(count) - first_row[group]
    sorted_rows = jnp.zeros((blocks * height, size)).at[place].set(rows[order], mode="drop")
    of_block = jnp.clip(jnp.searchsorted(jnp.cumsum(needed), jnp.arange(blocks), side="right"), 0, num_groups - 1)

    def add_block(total: Integers, block: tuple[jax.Array, jax.Array]) -> tuple[Integers, None]:
        values, g = block
        square = jnp.matmul(values.T, values, precision=jax.lax.Precision.HIGHEST).astype(jnp.int32)
        own = plus(Integers(total.high[g], total.low[g]), square)
        return Integers(total.high.at[g].set(own.high), total.low.at[g].set(own.low)), None

    nothing = jnp.zeros((num_groups, size, size), jnp.int32)
    total, _ = jax.lax.scan(
        add_block, Integers(nothing, nothing), (sorted_rows.reshape(blocks, height, size), of_block)
    )
    return total


def _digits(x: jax.Array, bits: int) -> Iterator[jax.Array]:
    """The digits d_0, d_1 of ``x = d_0 + 2^8 d_1``, at most 2^8 in absolute value; ``x`` if ``bits <= 8``."""
    if bits <= DIGIT_BITS:
        yield x
        return
    base = 2.0**DIGIT_BITS
    high = jnp.floor((x + base / 2) / base)
    yield x - base * high
    yield high


def normal(x: jax.Array) -> Integers:
    """Converts an int32 array to ``Integers`` in their normal form, with ``0 <= low < 2^24``."""
    return plus(Integers(jnp.zeros_like(x), jnp.zeros_like(x)), x)


def add(a: Integers, b: Integers) -> Integers:
    """``a + b``."""
    return plus(Integers(a.high + b.high, a.low), b.low)


def shifted(a: Integers, bits: int) -> Integers:
    """``a 2^bits``, for ``bits`` from 0 to 24; ``ValueError`` otherwise."""
    if not 0 <= bits <= LIMB_BITS:
        raise ValueError(f"a shift by {bits} bits; 0 to {LIMB_BITS} are supported.")
    if bits == 0:
        return a
    low = jax.lax.shift_left(a.low.astype(jnp.uint32), jnp.uint32(bits)) & jnp.uint32(2**LIMB_BITS - 1)
    return Integers(jax.lax.shift_left(a.high, bits) + (a.low >> (LIMB_BITS - bits)), low.astype(jnp.int32))
