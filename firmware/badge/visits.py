"""The wearer's visit: begun, extended and ended by gesture or armed by the station, with reminders and the miss.

The times are kept by protocol.visit; here is what the badge says and feels, and what survives a reset. The station
counts too, and decides: its orders replace the times here, unless the wearer has just done something that it cannot
know of yet.
"""

from micropython import const

from firmware.boards import draw
from protocol import downlink, events, kinds
from protocol.ident import NONE
from protocol.patterns import BATTERY_LOW, CHECK_IN_DUE
from protocol.visit import IDLE, MISS, MISSED, REMIND, Visit

from . import trace
from .clock import now_ms
from .outbox import Pending

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

    from .alarms import Alarms
    from .audio import Recorder
    from .retained import Retained
    from .settings import Settings
    from .uplink import Uplink

_NOTICE_MS = const(5000)
_STATUS_MS = const(6000)
_MARKS = (kinds.VISIT_START, kinds.CHECK_IN, kinds.EXTEND, kinds.VISIT_END, kinds.DURESS)


class Visits:
    """The one visit that a badge may be on."""

    def __init__(
        self,
        uplink: "Uplink",
        alarms: "Alarms",
        recorder: "Recorder",
        settings: "Settings",
        retained: "Retained",
        play: "Callable[[str], None]",
    ) -> None:
        self.visit = Visit()
        self._uplink = uplink
        self._alarms = alarms
        self._recorder = recorder
        self._settings = settings
        self._retained = retained
        self._play = play
        self._order = 0  # number of the latest order from the station
        self._ended_number = 0  # what the wearer ended; the station may not know yet
        self._ended_ref = NONE
        self._saved_ms = 0
        self._due_ms = 0
        self._reminded_ms = 0  # when the wearer was first asked to check in, in this interval

    @property
    def active(self) -> bool:
        """Whether a visit runs, or its miss has not been settled."""
        return self.visit.active

    def body(self) -> bytes:
        """The visit as an event's body."""
        visit = self.visit
        return events.pack_visit(
            visit.number, visit.ref, visit.due_ms - now_ms(), visit.interval_ms // 1000, visit.grace_ms // 1000
        )

    # --- by gesture

    def hold(self, duress: bool) -> None:
        """The one gesture that begins a visit or ends the one that runs. A check-in that names the act goes before
        it: by beacon, a duress can hide behind nothing else, and so it stands in that check-in's place, and all that
        follows is felt, timed and sent by the very same act."""
        alarms = self._alarms
        act = kinds.VISIT_END if self.active else kinds.VISIT_START
        if duress:
            alarms.surely(kinds.DURESS, kinds.CHECK_IN, events.pack_duress(act, self.body()), listen=False)
        else:
            self._uplink.raise_event(kinds.CHECK_IN, body=bytes((act,)))
        try:
            if act == kinds.VISIT_END:
                self.end()
            else:
                self.start()
        finally:
            if duress:
                alarms.listen(kinds.DURESS)

    def start(self) -> None:
        """Begin a visit of the usual length, and listen to what the wearer says of it. Felt as "charge the badge" and
        not begun where the battery will not last: who believes in a timer that dies is worse off than without one."""
        now = now_ms()
        settings = self._settings
        interval = settings.ms("visit_minutes")
        if not self._lasts(interval + settings.ms("grace_minutes")):
            trace.say("refused", "why=battery percent=%d" % self._uplink.battery())
            return
        seq = self._uplink.next_seq()
        ref = self._uplink.boot + seq.to_bytes(2, "big")
        agreed = settings.on("missed_check_in_audio")
        self.visit.start(now, interval, interval, settings.ms("grace_minutes"), ref, 0, agreed)
        event = self._uplink.raise_event(kinds.VISIT_START, body=self.body(), seq=seq)
        self._alarms.errand(event)
        self._note(event)
        self._save()

    def _lasts(self, ms: int) -> bool:
        """Whether the battery lasts so long; if not the wearer feels it, and the station hears of it."""
        percent = self._uplink.battery()
        if draw.minutes(percent) * 60000 >= ms:
            return True
        self._play(BATTERY_LOW)
        self._uplink.raise_event(kinds.BATTERY, body=bytes((percent,)))
        return False

    def amber(self) -> None:
        """A spoken note; a visit begins with it if none runs."""
        if not self.active:
            self.start()
            return
        event = self._uplink.raise_event(kinds.AMBER)
        self._alarms.errand(event)
        self._note(event)

    def _note(self, event: Pending) -> None:
        # an open alarm is listened to already, and a note would cut it
        if self._alarms.current is None:
            self._recorder.begin(kinds.AMBER, event.ident, now_ms() + self._settings.ms("amber_seconds"))

    def check_in(self) -> bool:
        """All is well: the interval begins again. False where no visit runs."""
        if not self.visit.check_in(now_ms()):
            return False
        self._alarms.errand(self._uplink.raise_event(kinds.CHECK_IN, incident=self._incident(), body=self.body()))
        self._save()
        return True

    def extend(self) -> bool:
        """More time. False where no visit runs, it is overdue, or the battery will not last."""
        more = self._settings.ms("extend_minutes")
        if self.active and not self._lasts(max(0, self.visit.due_ms - now_ms()) + more):
            return False
        if not self.visit.extend(now_ms(), more):
            return False
        self._alarms.errand(self._uplink.raise_event(kinds.EXTEND, body=self.body()))
        self._save()
        return True

    def end(self) -> bool:
        """The visit is over. False where none ran."""
        body = self.body()
        if not self._finish():
            return False
        self._alarms.errand(self._uplink.raise_event(kinds.VISIT_END, body=body))
        return True

    def duress(self) -> bytes:
        """Do what a check-in would do to the timer; the body of the event that tells the station."""
        if not self.active:
            return events.pack_duress(kinds.CHECK_IN, b"")
        self.visit.check_in(now_ms())
        self._save()
        return events.pack_duress(kinds.CHECK_IN, self.body())

    def _finish(self) -> bool:
        visit = self.visit
        if not visit.end():
            return False
        self._ended_number, self._ended_ref = visit.number, visit.ref
        if self._recorder.running and self._recorder.reason == kinds.AMBER:
            self._recorder.end()
        self._save()
        return True

    def _incident(self) -> bytes:
        return self._alarms.incident if self._alarms.audible else NONE

    # --- by the station

    def ordered(self, number: int, body: bytes, late_ms: int) -> None:
        """The station arms, changes or ends a visit. `number` of the message; `late_ms` old. Raises Malformed."""
        visit_number, ref, remaining, interval, grace, flags = downlink.unpack_visit(body)
        if number <= self._order:
            return
        self._order = number
        visit = self.visit
        same = visit.active and (visit_number == visit.number or (ref != NONE and ref == visit.ref))
        if flags & downlink.VISIT_ENDED:
            if same:
                self._finish()
                trace.say("visit", "state=ended number=%d" % visit_number)
            return
        if (visit_number == self._ended_number and visit_number) or (ref == self._ended_ref and ref != NONE):
            return  # the wearer has ended it, and the station will hear of it
        if same and any(event.kind in _MARKS for event in self._uplink.outbox.events):
            visit.number = visit_number  # its times are from before what the wearer just did
            return
        # the echo's age says how late the order may be, and most of it is the pause between two statuses
        late_ms = max(0, late_ms - _STATUS_MS)
        known = same and visit.number == visit_number
        audio = bool(flags & downlink.VISIT_AUDIO) and self._settings.on("missed_check_in_audio")
        visit.start(now_ms(), max(0, remaining - late_ms), interval, grace, ref, visit_number, audio)
        self._save()
        if not known:
            self._lasts(remaining)  # it runs all the same: that is the station's to decide, and the wearer's to know
            trace.say("visit", "state=armed number=%d" % visit_number)
            self._uplink.raise_event(kinds.VISIT_ARMED, body=self.body())

    # --- time and memory

    def tick(self, now: int) -> None:
        """Reminders and the miss."""
        what, _ = self.visit.poll(now)
        while what is not None:
            if what == REMIND:
                self._play(CHECK_IN_DUE)
                self._reminded_ms = self._reminded_ms or now
            elif what == MISS:
                # no order of a station can be a way to listen at once: the wearer was asked, and had time to answer
                asked = self._reminded_ms and now - self._reminded_ms >= _NOTICE_MS
                self._alarms.surely(kinds.MISSED_CHECK_IN, body=self.body(), listen=self.visit.audio and bool(asked))
            what, _ = self.visit.poll(now)
        if now - self._saved_ms >= 1000:
            self._save()

    def _save(self) -> None:
        visit = self.visit
        now = now_ms()
        self._saved_ms = now
        if visit.due_ms != self._due_ms:
            self._due_ms = visit.due_ms
            self._reminded_ms = 0
        self._retained.set_visit(
            visit.state,
            visit.audio,
            visit.number,
            visit.ref,
            (visit.interval_ms + 500) // 1000,
            min((visit.grace_ms + 500) // 1000, 0xFFFF),
            max(0, visit.due_ms - now) // 1000,
        )
        self._retained.write()

    def resume(self) -> None:
        """Go on with the visit that a reset interrupted. What the reset took is not counted; the station's clock is."""
        if not self._retained.valid:
            return
        state, audio, number, ref, interval_s, grace_s, remaining_s = self._retained.visit()
        if state == IDLE:
            return
        self.visit.start(now_ms(), remaining_s * 1000, interval_s * 1000, grace_s * 1000, ref, number, audio)
        if state == MISSED:
            self.visit.state = MISSED  # and its alarm was raised
        trace.say("visit", "state=resumed number=%d" % number)
