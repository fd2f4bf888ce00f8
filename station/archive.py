"""The archive of sound: captures and their packets, stored once each and as the badge sealed them.

Packets come live, late and in any order, and may come before the event that announces their capture. Until that
has come a capture counts to the open alarm of its badge, so that listening begins at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol import audio, events, kinds
from protocol.crypto import Forged
from protocol.ident import NONE
from protocol.keys import BadgeKeys
from station import downlinks
from station.model import Badge, BadgeEvent, BadgeKey, Capture, Packet
from station.work import Sound, Work

NUMBER_MAX = 40 * 86_400  # packets: a day; a capture that claims more is a defect and would fill a file with silence


def announced(work: Work, badge: Badge, event: BadgeEvent) -> None:
    """AUDIO_START or AUDIO_END of a capture."""
    number, reason, packets, _, _ = events.unpack_audio(event.body)
    found = work.core.keyring.of_badge(work.db, badge.number)
    if found is None:
        return
    row = _capture(work, badge, event.ident[:6], number, found[0])
    row.incident = event.incident
    alarm = downlinks.find_alarm(work, badge.number, event.incident)
    if event.incident != NONE:
        row.alarm_id = alarm.id if alarm else None
    row.reason = row.reason or kinds.name(reason)
    if event.kind == kinds.AUDIO_START:
        row.started_at = event.raised_at
    else:
        row.ended_at, row.made = event.raised_at, packets
    if alarm is not None:
        work.alarm_changed(alarm, "sound" if event.kind == kinds.AUDIO_START else "sound_end")


def _capture(work: Work, badge: Badge, boot: bytes, number: int, key_id: int) -> Capture:
    row = work.db.scalar(
        select(Capture).where(Capture.badge == badge.number, Capture.boot == boot, Capture.number == number)
    )
    if row is None:
        alarm = downlinks.open_alarm(work, badge.number)
        row = Capture(
            badge=badge.number,
            boot=boot,
            number=number,
            key_id=key_id,
            alarm_id=alarm.id if alarm else None,
            first_at=work.now,
        )
        work.db.add(row)
        work.db.flush()
    return row


def store(work: Work, badge: Badge, boot: bytes, number: int, packets: list[tuple[int, bytes]]) -> list[int]:
    """Store sealed packets (packet number, bytes); the numbers that are now in the archive, new or not.

    What no key of the badge opens is counted and left out.
    """
    key_id, opened = _open(work, badge, boot, number, packets)
    if key_id is None:
        return []
    row = _capture(work, badge, boot, number, key_id)
    known = set(
        work.db.scalars(
            select(Packet.number).where(Packet.capture_id == row.id, Packet.number.in_([n for n, _ in opened]))
        )
    )
    sealed = dict(packets)
    fresh = {n: packet for n, packet in opened if n not in known}
    work.db.add_all(Packet(capture_id=row.id, number=n, sealed=sealed[n]) for n in fresh)
    if fresh:
        work.out.sounds.append(Sound(row.id, row.alarm_id, sorted(fresh.items())))
    return [n for n, _ in opened]


def _open(
    work: Work, badge: Badge, boot: bytes, number: int, packets: list[tuple[int, bytes]]
) -> tuple[int | None, list[tuple[int, bytes]]]:
    # sound may lie in a hub while its badge is provisioned again: the older keys still open it
    rows = work.db.scalars(select(BadgeKey.id).where(BadgeKey.badge == badge.number).order_by(BadgeKey.id.desc()))
    for key_id in rows:
        opened = list(_opened(work.core.keyring.by_row(work.db, key_id), badge.number, boot, number, packets))
        if opened:
            for _ in range(len(packets) - len(opened)):
                work.count("sound forged")
            return key_id, opened
    work.count("sound forged")
    return None, []


def _opened(
    keys: BadgeKeys, badge: int, boot: bytes, number: int, packets: list[tuple[int, bytes]]
) -> Iterator[tuple[int, bytes]]:
    for index, sealed in packets:
        if index >= NUMBER_MAX:
            continue
        try:
            yield index, audio.open_audio(keys.audio, badge, boot, number, index, sealed)
        except Forged:
            continue


# --- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaptureInfo:
    """A capture as listeners and renderers need it."""

    id: int
    badge: int
    boot: bytes
    number: int
    key_id: int
    started_at: float
    ended: bool


def info(row: Capture) -> CaptureInfo:
    """The facts of a row, to be kept outside its transaction."""
    started = row.started_at if row.started_at is not None else row.first_at
    return CaptureInfo(row.id, row.badge, row.boot, row.number, row.key_id, started, row.ended_at is not None)


def of_alarm(db: Session, alarm_id: int) -> list[CaptureInfo]:
    """The captures of an alarm, in the order in which they began."""
    rows = db.scalars(select(Capture).where(Capture.alarm_id == alarm_id).order_by(Capture.first_at, Capture.id))
    return [info(row) for row in rows]


def packets(
    db: Session, keys: BadgeKeys, capture: CaptureInfo, after: int = -1, limit: int = 400
) -> list[tuple[int, bytes]]:
    """Up to `limit` ADPCM packets with numbers above `after`, in order."""
    rows = db.scalars(
        select(Packet)
        .where(Packet.capture_id == capture.id, Packet.number > after)
        .order_by(Packet.number)
        .limit(limit)
    )
    return opened(keys, capture, [(row.number, row.sealed) for row in rows])


def opened(keys: BadgeKeys, capture: CaptureInfo, sealed: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """ADPCM packets of stored ones (number, bytes)."""
    return list(_opened(keys, capture.badge, capture.boot, capture.number, sealed))
