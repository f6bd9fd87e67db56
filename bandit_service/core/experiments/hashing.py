"""The hashes by which experiment systems assign units. Pure, and exact on any text.

Text that is not valid Unicode (a lone surrogate) is hashed as its bytes would be, never refused: a
unit must always get the same variant.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import md5, sha256

_MASK = 0xFFFFFFFF
KEPT = 16_384
"""Hashes of units that are remembered, of those that were asked for lately: a few megabytes."""


@lru_cache(KEPT)
def sha256_fraction(salt: str, unit: str) -> float:
    """First 8 bytes of SHA-256 over salt and unit, each after its length, as a part of 2⁶⁴.

    In [0, 1): the fraction is cut to 53 bits, which a float holds exactly.

    >>> 0.0 <= sha256_fraction("", "") < 1.0
    True
    >>> sha256_fraction("ab", "c") == sha256_fraction("a", "bc")
    False
    """
    data = b"".join(len(part).to_bytes(8, "big") + part for part in (_utf8(salt), _utf8(unit)))
    return (int.from_bytes(sha256(data).digest()[:8], "big") >> 11) / (1 << 53)


def md5_shard(text: str, shards: int) -> int:
    """First 4 bytes of MD5, big-endian, modulo `shards` (Eppo)."""
    digest = md5(_utf8(text), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "big") % shards


def fnv1a_32(units: bytes | str) -> int:
    """FNV-1a, 32 bits; over the UTF-16 code units of a text, as GrowthBook does it.

    >>> fnv1a_32(b"foobar")
    3214735720
    """
    if isinstance(units, str):
        wide = units.encode("utf-16-le", "surrogatepass")
        numbers = [wide[i] | wide[i + 1] << 8 for i in range(0, len(wide), 2)]
    else:
        numbers = list(units)
    value = 0x811C9DC5
    for number in numbers:
        value = (value ^ number) * 0x01000193 & _MASK
    return value


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """MurmurHash3, x86, 32 bits (Appleby, public domain).

    >>> murmur3_32(b"", 1)
    1364076727
    """
    value, end = seed & _MASK, len(data) & ~3
    for i in range(0, end, 4):
        value ^= _mixed(int.from_bytes(data[i : i + 4], "little"))
        value = (_turned(value, 13) * 5 + 0xE6546B64) & _MASK
    if len(data) > end:
        value ^= _mixed(int.from_bytes(data[end:], "little"))
    value ^= len(data)
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16


def murmur3_text(text: str, seed: int = 0) -> int:
    """The same of a text's UTF-8."""
    return murmur3_32(_utf8(text), seed)


def _mixed(block: int) -> int:
    return _turned(block * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK


def _turned(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & _MASK


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
