"""The archived sound of an alarm as one WAV file: packets in their places, holes as silence, and counted."""

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol import adpcm
from station import archive
from station.keyring import Keyring
from station.live import decode
from station.model import Packet

HEADER = 44
BLOCK = 400  # packets (10 s) that are read at a time
_SILENCE = bytes(2 * adpcm.SAMPLES)


@dataclass(frozen=True)
class Extent:
    """One capture's part of the file: it begins with packet 0, and some packets may be missing."""

    capture: archive.CaptureInfo
    length: int  # packets in the file, silence included
    holes: list[tuple[int, int]]  # first and last missing packet, both included


def extents(db: Session, alarm_id: int, capture: int | None = None, limit: int | None = None) -> list[Extent]:
    """What there is of an alarm, or of its n-th capture (from 1); at most `limit` packets.

    A player that asks for the file in parts gives a limit, so that it does not grow under its hands.
    """
    found: list[Extent] = []
    left = archive.NUMBER_MAX if limit is None else limit
    for number, info in enumerate(archive.of_alarm(db, alarm_id), 1):
        if capture is not None and number != capture:
            continue
        numbers = list(db.scalars(select(Packet.number).where(Packet.capture_id == info.id).order_by(Packet.number)))
        numbers = [n for n in numbers if n < left]
        if numbers:
            left -= numbers[-1] + 1
            pairs = zip([-1, *numbers], numbers, strict=False)
            holes = [(before + 1, after - 1) for before, after in pairs if after - before > 1]
            found.append(Extent(info, numbers[-1] + 1, holes))
    return found


def header(packets: int) -> bytes:
    """A WAV header for so many packets of 16-bit mono."""
    size = packets * 2 * adpcm.SAMPLES
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + size,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        adpcm.RATE,
        2 * adpcm.RATE,
        2,
        16,
        b"data",
        size,
    )


def size(found: list[Extent]) -> int:
    """Bytes of the file."""
    return HEADER + sum(extent.length for extent in found) * len(_SILENCE)


Reading = Callable[[], AbstractContextManager[Session]]


def render(read: Reading, keyring: Keyring, found: list[Extent], first: int, last: int) -> Iterator[bytes]:
    """Bytes `first` to `last` of the file; their number is fixed, whatever is stored in the meantime.

    Nothing of the database is held between two pieces: whoever takes them may stop for hours.
    """
    skip = max(first - HEADER, 0) // len(_SILENCE)
    at = HEADER + skip * len(_SILENCE) if skip else 0  # where the next piece stands in the file
    for piece in _pieces(read, keyring, found, skip):
        begin, end = max(first - at, 0), min(last + 1 - at, len(piece))
        if begin < end:
            yield piece[begin:end]
        at += len(piece)
        if at > last:
            return


def _pieces(read: Reading, keyring: Keyring, found: list[Extent], skip: int) -> Iterator[bytes]:
    """The header unless packets are skipped, then the packets after the first `skip` ones, holes as silence."""
    if not skip:
        yield header(sum(extent.length for extent in found))
    for extent in found:
        at = min(skip, extent.length)  # the next packet to write
        skip -= at
        while at < extent.length:
            end = min(at + BLOCK, extent.length)
            with read() as db:
                keys = keyring.by_row(db, extent.capture.key_id)
                block = dict(archive.packets(db, keys, extent.capture, at - 1, BLOCK))
            yield b"".join(_samples(block.get(number)) for number in range(at, end))
            at = end


def _samples(packet: bytes | None) -> bytes:
    return _SILENCE if packet is None else (decode(packet) + _SILENCE)[: len(_SILENCE)]
