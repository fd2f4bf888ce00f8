"""Sound on flash, for as long as no hub takes it: one file a capture, records appended in batches.

Flash wears by blocks of 4 KB, so records come in batches of about one block, only while the link does not drain, and
a file is removed whole when all of it was taken. What lies where is kept in memory as runs of consecutive packets;
after a reset it is found again from the records' own numbers, without reading the sound.
"""

import os

from micropython import const

from . import trace
from .buffers import PACKETS, SEALED_LENGTH

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

_RECORD = 4 + SEALED_LENGTH  # packet number u32, sealed packet
BATCH = 4096 // _RECORD  # records that fill one block
_RUNS = const(64)  # a run more for each gap in the link
_KEEP_FREE = const(65536)  # bytes that stay free for settings and journal
_PREFIX = "sound-"


class Spool:
    """The file of one capture. `path` None: no flash, nothing is kept."""

    def __init__(self, path: "str | None") -> None:
        self._path = path
        self.runs: "list[list[int]]" = []  # [first packet, how many, record of the first], ascending
        self._records = 0

    def keep(self, ring: bytearray, first: int, end: int) -> bool:
        """Write packets [first, end) from the ring. False when flash is full or broken: then none of them counts."""
        if first >= end:
            return True
        try:
            if self._path is None:
                raise OSError(19)  # ENODEV
            state = os.statvfs(self._path.rsplit("/", 1)[0])
            if state[0] * state[3] < _KEEP_FREE:
                raise OSError(28)  # ENOSPC
            view = memoryview(ring)
            with open(self._path, "r+b" if self._records else "wb") as file:
                # a record that a power cut or a full flash left half written is written over
                file.seek(self._records * _RECORD)
                for number in range(first, end):
                    at = number % PACKETS * SEALED_LENGTH
                    file.write(number.to_bytes(4, "big"))
                    file.write(view[at : at + SEALED_LENGTH])
        except OSError as error:
            trace.fault("spool", error)
            return False
        for number in range(first, end):
            self._note(number)
        return True

    def _note(self, number: int) -> None:
        runs = self.runs
        if runs and runs[-1][0] + runs[-1][1] == number:
            runs[-1][1] += 1
        elif len(runs) < _RUNS:
            runs.append([number, 1, self._records])
        self._records += 1

    def read(self, number: int) -> "bytes | None":
        """The sealed packet, None where it is not here."""
        for first, count, record in self.runs:
            if first <= number < first + count and self._path is not None:
                try:
                    with open(self._path, "rb") as file:
                        file.seek((record + number - first) * _RECORD + 4)
                        sealed = file.read(SEALED_LENGTH)
                except OSError as error:
                    trace.fault("spool", error)
                    return None
                return sealed if len(sealed) == SEALED_LENGTH else None
        return None

    def following(self, number: int) -> "int | None":
        """The lowest packet here that is not below this one."""
        for first, count, _ in self.runs:
            if number < first + count:
                return max(number, first)
        return None

    def release(self, below: int) -> None:
        """Packets below this number are stored elsewhere. Removes the file when nothing is left in it."""
        had = bool(self.runs)
        while self.runs and self.runs[0][0] + self.runs[0][1] <= below:
            self.runs.pop(0)
        if had and not self.runs:
            self.remove()

    def remove(self) -> None:
        """Forget everything."""
        self.runs = []
        self._records = 0
        if self._path is not None:
            try:
                os.remove(self._path)
            except OSError as error:
                if error.errno != 2:
                    trace.fault("spool", error)

    def find(self) -> None:
        """Find again what lies in the file, after a reset."""
        if self._path is None:
            return
        try:
            records = os.stat(self._path)[6] // _RECORD
            with open(self._path, "rb") as file:

                def number_of(record: int) -> int:
                    file.seek(record * _RECORD)
                    return int.from_bytes(file.read(4), "big")

                self._search(number_of, records)
        except OSError as error:
            trace.fault("spool", error)

    def _search(self, number_of: "Callable[[int], int]", records: int) -> None:
        # consecutive from one record to another means consecutive all between: halve until it is
        at = 0
        while at < records and len(self.runs) < _RUNS:
            first = number_of(at)
            low, high = at, records - 1
            while low < high:
                middle = (low + high + 1) // 2
                if number_of(middle) - first == middle - at:
                    low = middle
                else:
                    high = middle - 1
            self.runs.append([first, low - at + 1, at])
            at = low + 1
        self._records = records


def path_of(folder: "str | None", boot: bytes, capture: int) -> "str | None":
    """The file of a capture."""
    return "%s/%s%s%04x" % (folder, _PREFIX, boot.hex(), capture) if folder else None


def forget_all(folder: "str | None") -> None:
    """Remove all sound: it was another wearer's."""
    found = oldest(folder, ())
    while found is not None:
        Spool(path_of(folder, found[0], found[1])).remove()
        after = oldest(folder, ())
        found = after if after != found else None  # a file that cannot be removed


def oldest(folder: "str | None", without: "tuple[tuple[bytes, int], ...]") -> "tuple[bytes, int] | None":
    """Boot and capture number of the oldest file of sound but those named; None when there is no other.

    However many there are, only one name at a time is in memory.
    """
    found = None
    if folder is None:
        return found
    try:
        for entry in os.ilistdir(folder):
            name = entry[0]
            if name.startswith(_PREFIX) and len(name) == len(_PREFIX) + 16:
                key = bytes.fromhex(name[len(_PREFIX) :])
                one = (key[:6], key[6] << 8 | key[7])
                if one not in without and (found is None or one < found):
                    found = one
    except (OSError, ValueError) as error:
        trace.fault("spool", error)
    return found
