"""Sums of whole numbers over all rows, exactly: the same for any order of rows, chunks, devices and backends.

Float32 addition is not associative: adding one row shifts which rows share a block, every block may round the other
way, and a sum moves by many times what the row is long (Casacuberta et al., 2022, arXiv 2207.10635). Here rows are
whole numbers and products are of matrices of their digits. A digit has at most 8 significant bits, which every format
of a matrix unit has (bfloat16, TF32, float32), and a block has so few rows that every partial sum is below 2^24, where
float32 holds all integers: the unit's order does not matter. Blocks are added up as integers.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.noise import LIMB_BITS, Integers, plus

DIGIT_BITS = 8
# Entries of rows are at most 2^MAX_BITS in size.
MAX_BITS = 15
# Sums of float32 integers are exact up to here.
EXACT_BITS = 24
# Blocks, each a sum of at most 2^24, that an int32 has room for.
MAX_BLOCKS = 64


def exact_product(a: jax.Array, b: jax.Array, bits_a: int, bits_b: int) -> Integers:
    """``a^T b`` of whole numbers.

    Args:
      a: float32 ``[N, P]``, whole numbers of at most ``2^bits_a`` in size; ``bits_a`` 0 for indicators.
      b: float32 ``[N, Q]``, alike.
      bits_a: at most ``MAX_BITS``.
      bits_b: alike.

    Returns:
      ``[P, Q]``.

    Formal guarantees:
      Exact, while no sum is above 2^53: bitwise the same for rows in any order, in any arithmetic that multiplies
      numbers of 8 significant bits and adds integers below 2^24 exactly.
    """
    if max(bits_a, bits_b) > MAX_BITS:
        raise ValueError(f"entries of {max(bits_a, bits_b)} bits; at most {MAX_BITS} are summed.")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} rows and {len(b)} rows: each row of one belongs to a row of the other.")
    largest = min(bits_a, DIGIT_BITS) + min(bits_b, DIGIT_BITS)
    rows = 2 ** (EXACT_BITS - largest)
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
    """Sums ``[G, D]`` of the rows ``[N, D]`` of each group, int ``[N]`` in ``0..G-1``; others are left out."""
    return exact_product(jax.nn.one_hot(groups, num_groups), rows, 0, bits)


def squares_by_group(rows: jax.Array, groups: jax.Array, num_groups: int, bits: int) -> Integers:
    """``sum_i r_i r_i^T``, ``[G, D, D]``, over the rows ``[N, D]`` of each group, int ``[N]``.

    Groups are ``0..G-1``; rows of others are left out. Bits: at most 8. Rows are sorted into blocks of one group each,
    G times less work than a pass over all rows for each group, which changes nothing: exact sums are the same for rows
    in any order.
    """
    if bits > DIGIT_BITS:
        raise ValueError(f"entries of {bits} bits; at most {DIGIT_BITS} are squared.")
    if groups.shape != (len(rows),):  # a single group would be that of every place, and its row counted N times
        raise ValueError(f"{len(rows)} rows and groups of shape {groups.shape}: each row has one.")
    inside = (groups >= 0) & (groups < num_groups)
    rows, groups = jnp.where(inside[:, None], rows, 0.0), jnp.where(inside, groups, 0)
    if num_groups == 1:
        one = exact_product(rows, rows, bits, bits)
        return Integers(one.high[None], one.low[None])
    count, size = rows.shape
    height = min(2 ** (EXACT_BITS - 2 * bits), 256, max(1, count // num_groups))
    blocks = count // height + num_groups  # enough for any groups: each has one block that is not full
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
    """``x = d_0 + 2^8 d_1`` with digits of at most 2^8 in size, or ``x`` itself if that is."""
    if bits <= DIGIT_BITS:
        yield x
        return
    base = 2.0**DIGIT_BITS
    high = jnp.floor((x + base / 2) / base)
    yield x - base * high
    yield high


def normal(x: jax.Array) -> Integers:
    """An int32, as ``Integers``."""
    return plus(Integers(jnp.zeros_like(x), jnp.zeros_like(x)), x)


def add(a: Integers, b: Integers) -> Integers:
    """``a + b``."""
    return plus(Integers(a.high + b.high, a.low), b.low)


def shifted(a: Integers, bits: int) -> Integers:
    """``a 2^bits``, for 0 to 24 bits."""
    if not 0 <= bits <= LIMB_BITS:
        raise ValueError(f"a shift by {bits} bits; 0 to {LIMB_BITS} are done.")
    if bits == 0:
        return a
    low = jax.lax.shift_left(a.low.astype(jnp.uint32), jnp.uint32(bits)) & jnp.uint32(2**LIMB_BITS - 1)
    return Integers(jax.lax.shift_left(a.high, bits) + (a.low >> (LIMB_BITS - bits)), low.astype(jnp.int32))
