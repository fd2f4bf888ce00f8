"""MicroPython's read-only filesystem image, from which code runs in place.

Format: docs of `vfs.VfsRom` and extmod/vfs_rom.c: nested records of kind, length, payload; numbers in base
128, most significant digit first.
"""

from __future__ import annotations

from collections.abc import Mapping

_MAGIC = b"\xd2\xcd\x31"
_DATA, _DIRECTORY, _FILE = 2, 4, 5


def _number(n: int) -> bytes:
    digits = [n & 0x7F]
    while n := n >> 7:
        digits.append(0x80 | n & 0x7F)
    return bytes(reversed(digits))


def _record(kind: int, payload: bytes) -> bytes:
    return _number(kind) + _number(len(payload)) + payload


def _named(kind: int, name: str, payload: bytes) -> bytes:
    raw = name.encode()
    return _record(kind, _number(len(raw)) + raw + payload)


def image(files: Mapping[str, bytes]) -> bytes:
    """The image of a tree of files, by path ("protocol/ident.mpy")."""
    folders: dict[str, dict[str, bytes]] = {}
    body = b""
    for path, data in sorted(files.items()):
        folder, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(folder, {})[rest] = data
        else:
            body += _named(_FILE, path, _record(_DATA, data))
    for folder, inside in sorted(folders.items()):
        body += _named(_DIRECTORY, folder, _tree(inside))
    length = _number(len(body))
    if (len(_MAGIC) + len(length) + len(body)) % 2:
        length = b"\x80" + length  # the image's size is even
    return _MAGIC + length + body


def size(data: bytes | memoryview) -> int:
    """How long the image is that `data` begins with. Raises ValueError when it begins with none."""
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise ValueError("this is not a ROMFS image")
    length = 0
    for at in range(len(_MAGIC), min(len(data), len(_MAGIC) + 6)):
        length = length << 7 | data[at] & 0x7F
        if not data[at] & 0x80:
            if at + 1 + length > len(data):
                break
            return at + 1 + length
    raise ValueError("the ROMFS image is cut off")


def _tree(files: Mapping[str, bytes]) -> bytes:
    whole = image(files)
    at = len(_MAGIC)
    while whole[at] & 0x80:
        at += 1
    return whole[at + 1 :]
