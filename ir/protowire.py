"""The two pieces of protobuf's wire format that reading and writing models without their weights takes."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A non-negative integer as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_delimited(number: int, length: int) -> bytes:
    """The head of a length-delimited field: its tag and its length."""
    return varint(number << 3 | 2) + varint(length)
