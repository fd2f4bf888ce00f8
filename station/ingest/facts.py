"""What every uplink of a badge tells beside its event: that it lives, by which hub, and what to echo to it.

Only what is newer than all before is a sign of life: a broker may repeat old messages, and they stay authentic.
"""

from typing import Any

from station import supervision
from station.model import Badge, Boot, Hearing, Hub
from station.work import Work

_HALF = 1 << 15


def boot_row(work: Work, badge: Badge, boot: bytes) -> Boot:
    """The row of a badge's boot, made when it is heard for the first time."""
    row = work.find(Boot, badge.number, boot)
    if row is None:
        row = Boot(badge=badge.number, boot=boot, first_at=work.now)
        work.add(row)
        work.db.flush()
        # a higher counter is a later run; a wiped badge counts from the beginning again and is believed by its STATUS
        before = int.from_bytes((badge.boot or bytes(2))[:2], "big")
        if badge.boot is None or 0 < (int.from_bytes(boot[:2], "big") - before) % 65536 < _HALF:
            badge.boot = boot
    return row


def uplink(work: Work, badge: Badge, hub: Hub, boot: bytes, number: int, held: float) -> tuple[Boot, bool]:
    """Note uplink `number` of a boot, held for so many seconds by the hub; whether it is newer than all before."""
    row = boot_row(work, badge, boot)
    if number <= row.uplink:
        return row, False
    row.uplink, row.uplink_at = number, work.now - held
    _heard(work, badge, hub, "connection", held)
    return row, True


def beacon(work: Work, badge: Badge, hub: Hub, boot: bytes, rotation: int, held: float) -> Boot:
    """Note that a beacon was heard; rotations count modulo 65,536."""
    row = boot_row(work, badge, boot)
    if row.rotation < 0 or 0 < (rotation - row.rotation) % 65536 < _HALF:
        row.rotation, row.rotation_at = rotation, work.now - held
        _heard(work, badge, hub, "beacon", held)
    return row


def _heard(work: Work, badge: Badge, hub: Hub, via: str, held: float) -> None:
    at = work.now - held
    row = work.find(Hearing, badge.number, hub.id)
    if row is None:
        work.add(Hearing(badge=badge.number, hub=hub.id, at=at, via=via))
        work.db.flush()
    elif at >= row.at:
        row.at, row.via = at, via
    supervision.badge_heard(work, badge, hub, at)


def signal_strength(work: Work, badge: Badge, hub: Hub, facts: dict[str, Any]) -> int | None:
    """The received signal strength in dBm that a hub reports, also kept with its hearing."""
    rssi = facts.get("rssi")
    if not isinstance(rssi, int) or isinstance(rssi, bool) or not -200 <= rssi <= 50:
        return None
    row = work.find(Hearing, badge.number, hub.id)
    if row is not None:
        row.rssi = rssi
    return rssi


def battery(work: Work, badge: Badge, percent: int) -> None:
    """The badge told how full its battery is."""
    if 0 <= percent <= 100:
        badge.battery = percent
        supervision.battery(work, f"badge:{badge.number}", percent)
