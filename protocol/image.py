"""The file of a firmware update (`*.tbu`): a signed head of fixed size, then the firmware as it lies in flash.

    0 magic "TBU" and the version of this format u8 | 4 board, 16 | 20 version, 24 | 44 release u32 | 48 length u32
    52 seconds of trial u16 | 54 zeros 10 | 64 SHA-256 of the firmware 32 | 96 zeros 32
    128 signature of the first 128 bytes, 64 (protocol/p256.py) | 192 zeros 64 | 256 the firmware

Numbers are big-endian, names are ASCII filled up with zeros. `release` counts up with every release and never goes back
on a badge; `version` is for people. The firmware is one piece, not a list of files: there is no name in it that a badge
would have to believe, and nothing to write to but the one slot.
"""

MAGIC = b"TBU\x01"
HEAD = 256
SIGNED = 128
SIGNATURE = 192  # where it ends
CHUNK = 128  # bytes in a line of the cable; a divisor of HEAD and of a flash block
BOARD_MAX = 16
VERSION_MAX = 24
TRIAL_LEAST = 5  # seconds
TRIAL_MOST = 3600
_DIGEST_AT = 64


class BadImage(Exception):
    """Not an update, or not for this badge; the text says what to do."""


class Head:
    """What an update says of itself. `length` in bytes; `trial` are the seconds to reach a hub in."""

    def __init__(self, board: str, version: str, release: int, length: int, trial: int, digest: bytes) -> None:
        self.board = board
        self.version = version
        self.release = release
        self.length = length
        self.trial = trial
        self.digest = digest

    def pack(self) -> bytes:
        """The part that is signed, SIGNED bytes. Raises BadImage for what does not fit."""
        if not _name(self.board, BOARD_MAX) or not _name(self.version, VERSION_MAX):
            raise BadImage("board and version are letters, digits and ._+- (at most 16 and 24)")
        if not TRIAL_LEAST <= self.trial <= TRIAL_MOST:
            raise BadImage("the trial is %d to %d seconds" % (TRIAL_LEAST, TRIAL_MOST))
        if not 0 < self.length < 1 << 32 or not 0 <= self.release < 1 << 32 or len(self.digest) != 32:
            raise BadImage("the firmware is empty or too large, or the release is not a number")
        names = _filled(self.board, BOARD_MAX) + _filled(self.version, VERSION_MAX)
        numbers = self.release.to_bytes(4, "big") + self.length.to_bytes(4, "big") + self.trial.to_bytes(2, "big")
        return MAGIC + names + numbers + bytes(10) + self.digest + bytes(32)


def _name(text: str, most: int) -> bool:
    return 0 < len(text) <= most and all(
        "a" <= c <= "z" or "A" <= c <= "Z" or "0" <= c <= "9" or c in "._+-" for c in text
    )


def _filled(text: str, size: int) -> bytes:
    raw = text.encode()
    return raw + bytes(size - len(raw))


def _text(raw: bytes) -> str:
    if any(byte > 126 for byte in raw):
        return ""  # no name: pack() refuses it
    return raw.rstrip(b"\0").decode()


def unpack(head: bytes) -> Head:
    """The inverse of Head.pack, from the first HEAD bytes or more of a file. Raises BadImage.

    What it gives is only what the file says: nothing of it may be done before the signature is found to be good.
    """
    if len(head) < HEAD or bytes(head[:3]) != MAGIC[:3]:
        raise BadImage("this is not an update for a badge")
    if head[3] != MAGIC[3]:
        raise BadImage("an update of format %d, and this badge reads %d" % (head[3], MAGIC[3]))
    found = Head(
        _text(bytes(head[4:20])),
        _text(bytes(head[20:44])),
        int.from_bytes(head[44:48], "big"),
        int.from_bytes(head[48:52], "big"),
        int.from_bytes(head[52:54], "big"),
        bytes(head[_DIGEST_AT : _DIGEST_AT + 32]),
    )
    if found.pack() != bytes(head[:SIGNED]) or any(head[SIGNATURE:HEAD]):
        raise BadImage("the head of the update is damaged")
    return found
