"""Random damage to bytes, as disks, cables and people do it."""

from __future__ import annotations

import random
from collections.abc import Iterator


def damaged(data: bytes, dice: random.Random) -> bytes:
    """The data with something wrong; now and then what comes of it is the same again."""
    if not data:
        return b"?"
    at, other = dice.randrange(len(data)), dice.randrange(len(data))
    size = dice.randrange(1, 1 + min(64, len(data)))
    kind = dice.choice(
        (
            "flip",
            "flip",
            "flip",
            "truncate",
            "duplicate",
            "swap",
            "empty",
            "garbage",
            "header",
            "digits",
        )
    )
    out = bytearray(data)
    if kind == "flip":
        for _ in range(dice.randrange(1, 4)):
            out[dice.randrange(len(out))] ^= 1 << dice.randrange(8)
    elif kind == "truncate":
        del out[at:]
    elif kind == "duplicate":
        out[at:at] = data[at : at + size]
    elif kind == "swap":
        out[at : at + size], out[other : other + size] = (
            data[other : other + size],
            data[at : at + size],
        )
    elif kind == "empty":
        out.clear()
    elif kind == "garbage":
        out[:] = dice.randbytes(dice.randrange(1, 400))
    elif kind == "header":  # sizes and counts that nobody has
        out[: dice.choice((4, 8, 16, 32))] = dice.choice((b"\xff", b"\x7f", b"\0")) * dice.choice(
            (4, 8, 16, 32)
        )
    else:
        for place in [n for n, byte in enumerate(data) if 48 <= byte < 58][at % 7 :: 7]:
            out[place] = dice.choice(b"0123456789-.eE[")
    return bytes(out)


def damages(data: bytes, count: int, *, seed: int) -> Iterator[bytes]:
    """`count` ways to damage the data, the same for the same seed."""
    dice = random.Random(seed)
    for _ in range(count):
        yield damaged(data, dice)
