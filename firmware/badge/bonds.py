"""Bluetooth bonds: raw secrets of the stack, kept so that addresses stay private. Never what trust rests on.

The stack asks for them before and while it runs; they are in memory, and written to the store by the application when
`changed` is set (never inside the handler). A secret is opaque and may become invalid with a firmware upgrade: what
cannot be read is dropped, and pairing is done again.
"""

from micropython import const

_LIMIT = const(16)  # secrets: a bond has two or three, a badge a handful of hubs


class Bonds:
    """The secrets in memory."""

    def __init__(self, payload: "bytes | None" = None) -> None:
        self._secrets: "list[tuple[int, bytes, bytes]]" = []  # newest last
        self.changed = False
        at = 0
        data = payload or b""
        while at + 4 <= len(data):
            key_end = at + 4 + data[at + 1]
            end = key_end + (data[at + 2] << 8 | data[at + 3])
            if end > len(data):
                break
            self._secrets.append((data[at], data[at + 4 : key_end], data[key_end:end]))
            at = end

    def pack(self) -> bytes:
        """For the store: type u8 | key length u8 | value length u16 | key | value, each."""
        out = b""
        for kind, key, value in self._secrets:
            out += bytes((kind, len(key), len(value) >> 8, len(value) & 0xFF)) + key + value
        return out

    def get(self, kind: int, index: int, key: "bytes | memoryview | None") -> "bytes | None":
        """The secret of a key, or without a key the one at `index` of its kind."""
        wanted = bytes(key) if key is not None else None
        for found_kind, found_key, value in self._secrets:
            if found_kind == kind:
                if wanted is None:
                    if index == 0:
                        return value
                    index -= 1
                elif found_key == wanted:
                    return value
        return None

    def put(self, kind: int, key: "bytes | memoryview", value: "bytes | memoryview | None") -> bool:
        """Keep a secret, or with None forget it. False where there was nothing to forget."""
        wanted = bytes(key)
        kept = [s for s in self._secrets if s[0] != kind or s[1] != wanted]
        gone = len(kept) < len(self._secrets)
        if value is not None:
            kept.append((kind, wanted, bytes(value)))
        self._secrets = kept[-_LIMIT:]
        self.changed = True
        return gone or value is not None
