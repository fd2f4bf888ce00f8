"""What is heard on the air: beacons of the council's badges, among anything that strangers send.

Work for a stranger's advertisement is bounded: most are thrown away by their first bytes, one that looks like ours
costs a block of AES for each group key, the same one again costs a look in a table, and beyond a rate nothing more is
looked at in that second. A beacon that routes may still be forged by somebody who stole a group key, so alarms are
relayed at a limited rate for each badge. A badge whose boot has proved itself, by a session or by the station's
receipt, has a rate of its own that nobody else can use up.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from protocol import beacon, kinds
from protocol.beacon import Beacon, Group

REPEATS = 2048  # payloads that are known by sight: 100 badges for more than a minute
ROUTED_PER_S = 1500  # payloads a second that are decrypted; 30 us each and group key on a small machine
BURST = 4.0  # alarm beacons of one badge that are relayed at once: an SOS, its cancel, and their next rotation
REFILL_MS = 1500  # and then one in this time: badges rotate every 2 s at the fastest
TRUSTED_BURST = 8.0  # of a boot that has proved itself: each press is an event of its own, and frightened people press
TRUSTED_REFILL_MS = 500
BADGES_MAX = 1024  # badge numbers with a rate of their own; the one unheard for longest makes room
TRUSTED_MAX = 256


@dataclass(frozen=True)
class Heard:
    """A beacon, and what the hub does with it. `relay`: it is an alarm that the station must have."""

    beacon: Beacon
    new: bool
    relay: bool


class _Rate:
    """A bucket that fills with time."""

    def __init__(self, now_ms: int, trusted: bool) -> None:
        self._most, self._refill_ms = (TRUSTED_BURST, TRUSTED_REFILL_MS) if trusted else (BURST, REFILL_MS)
        self._level = self._most
        self._at_ms = now_ms

    def take(self, now_ms: int) -> bool:
        self._level = min(self._most, self._level + (now_ms - self._at_ms) / self._refill_ms)
        self._at_ms = now_ms
        if self._level < 1:
            return False
        self._level -= 1
        return True


class Listener:
    """Sorts advertisements. `groups()` gives the group keys; `counters` has what was dropped and why."""

    def __init__(self, groups: Callable[[], list[Group]]) -> None:
        self.counters: Counter[str] = Counter()
        self._groups = groups
        self._seen: OrderedDict[bytes, Beacon | None] = OrderedDict()
        self._keys: list[Group] = []
        self._second = -1
        self._spent = 0
        self._rates: OrderedDict[tuple[int, bytes], _Rate] = OrderedDict()
        self._trusted: OrderedDict[tuple[int, bytes], None] = OrderedDict()

    def trust(self, badge: int, boot: bytes) -> None:
        """This boot of a badge has proved itself."""
        self._trusted[(badge, boot)] = None
        self._trusted.move_to_end((badge, boot))
        if len(self._trusted) > TRUSTED_MAX:
            self._trusted.popitem(last=False)

    def trusted(self, badge: int, boot: bytes) -> bool:
        """Whether this boot of a badge has proved itself."""
        return (badge, boot) in self._trusted

    def hear(self, manufacturer_data: dict[int, bytes], now_ms: int) -> Heard | None:
        """What an advertisement says; None for what is not a beacon of ours. Never raises, whatever it holds."""
        data = manufacturer_data.get(beacon.COMPANY)
        if data is None or len(data) != beacon.LENGTH:
            self.counters["strangers"] += 1
            return None
        groups = self._groups()
        if groups is not self._keys:
            self._keys = groups
            self._seen.clear()
        data = bytes(data)
        if data in self._seen:
            self._seen.move_to_end(data)
            known = self._seen[data]
            return Heard(known, False, False) if known else None
        if now_ms // 1000 != self._second:
            self._second = now_ms // 1000
            self._spent = 0
        self._spent += 1
        if self._spent > ROUTED_PER_S:
            self.counters["too_many"] += 1
            return None
        found = beacon.route(groups, data)
        self._seen[data] = found
        if len(self._seen) > REPEATS:
            self._seen.popitem(last=False)
        if found is None:
            self.counters["unrouted"] += 1
            return None
        self.counters["beacons"] += 1
        return Heard(found, True, self._relays(found, now_ms))

    def _relays(self, found: Beacon, now_ms: int) -> bool:
        # an ENROL needs what only a connection can carry; as a beacon it would only use its identity up
        if not beacon.announces(found.kind) or found.kind == kinds.ENROL:
            return False
        trusted = (found.badge, found.boot) in self._trusted
        key = (found.badge, found.boot if trusted else b"")
        rate = self._rates.get(key)
        if rate is None:
            rate = self._rates[key] = _Rate(now_ms, trusted)
            if len(self._rates) > BADGES_MAX:
                self._rates.popitem(last=False)
        self._rates.move_to_end(key)
        if not rate.take(now_ms):
            self.counters["rate_limited"] += 1
            return False
        return True
