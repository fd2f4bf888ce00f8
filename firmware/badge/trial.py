"""New firmware on trial: it stays only if it reaches a hub. Loaded only when the store says that there is one.

The ESP32's boot loader starts a new slot once. Unless that run says that it is good, the next reset of any kind starts
the old one again, however badly the new one fails: that needs nothing of this file. What this file adds is when to say
so (an authenticated session with a hub), when to give up (the signed number of seconds, or _STARTS starts, because
waking from standby is none for the boot loader), and that both are told.
"""

import esp32
from micropython import const

from protocol import kinds

from . import trace
from .retained import CAUSE_WENT_BACK
from .store import UPDATE

if False:  # for type checkers only: MicroPython has no typing module
    from .main import Machine
    from .store import Store

_STARTS = const(3)
_LABEL = const(16)

STAYS = 1
BACK = 2


def pack(label: str, version: str, seconds: int, starts: int) -> bytes:
    """The record of a trial (store.UPDATE): starts u8, seconds u16, label of the slot 16, version."""
    raw = label.encode()[:_LABEL]
    return bytes((starts, seconds >> 8, seconds & 0xFF)) + raw + bytes(_LABEL - len(raw)) + version.encode()


class Trial:
    """What the record says, held against the slot that runs. `over`: it has been decided before, by the boot loader."""

    def __init__(self, record: bytes, running: str) -> None:
        self.starts = record[0] + 1
        self.seconds = record[1] << 8 | record[2]
        self.label = bytes(record[3 : 3 + _LABEL]).rstrip(b"\0").decode()
        self.version = bytes(record[3 + _LABEL :]).decode()
        self.over = self.label != running
        self.stubborn = not self.over and self.starts > _STARTS + 1  # it was given up, and runs all the same

    def pack(self) -> bytes:
        """The record with this start counted."""
        return pack(self.label, self.version, self.seconds, min(self.starts, 255))

    def verdict(self, now: int, reached: bool, busy: bool) -> int:
        """STAYS, BACK or 0 for not yet. `reached`: a hub has an authenticated session with the badge. `busy`: this is
        no moment for a restart."""
        if reached:
            return STAYS
        if not busy and (now >= self.seconds * 1000 or self.starts > _STARTS):
            return BACK
        return 0

    def judge(self, parts: "Machine", now: int) -> None:
        """Called at every tick: do what the verdict is."""
        badge = parts.badge
        # a button that is down is somebody who wants something; an alarm that the station has is served from here, but
        # one that nobody has heard may be heard by the firmware that did reach a hub, which resumes it
        busy = parts.recogniser.busy()
        reached = False
        if badge is not None:  # else this firmware does not find the keys that the one before had
            busy = busy or badge.alarms.level >= kinds.RECEIVED
            reached = bool(badge.links.established())
        verdict = self.verdict(now, reached, busy)
        if verdict == STAYS:
            try:
                stay()
            except OSError as error:
                trace.fault("update", error)
                return
            forget(parts.store)
            trace.say("update", "state=stays version=" + self.version)
            parts.trial = None
            parts.unload("firmware.badge.trial")
        elif verdict == BACK:
            trace.say("update", "state=failed version=" + self.version)
            parts.reset(CAUSE_WENT_BACK)


def begin(parts: "Machine", record: bytes) -> "Trial | None":
    """At the start: the trial that goes on, or None when the boot loader went back: then it is said and forgotten.

    Raises nothing: a record that makes no sense is forgotten too.
    """
    try:
        running = esp32.Partition(esp32.Partition.RUNNING)  # type: ignore[arg-type]  # the stubs know only labels
        trial = Trial(record, running.info()[4])
        if not trial.over:
            parts.store.write(UPDATE, trial.pack())
            if trial.stubborn:
                running.get_next_update().set_boot()
            words = (trial.version, trial.seconds, trial.starts)
            trace.say("update", "state=trial version=%s seconds=%d start=%d" % words)
            return trial
        trace.say("update", "state=back version=" + trial.version)
        parts.retained.set_cause(CAUSE_WENT_BACK)
        stay()
    except (OSError, ValueError, IndexError) as error:
        trace.fault("update", error)
    forget(parts.store)
    parts.unload("firmware.badge.trial")
    return None


def stay() -> None:
    """Tell the boot loader that what runs is good. Raises OSError."""
    esp32.Partition.mark_app_valid_cancel_rollback()


def forget(store: "Store") -> None:
    """There is no trial any more. An empty record, because it lies in both places."""
    store.write(UPDATE, b"")
