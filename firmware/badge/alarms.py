"""The wearer's alarm and errands, from the act to the felt answer.

What may be felt is decided by protocol.custody; here is what has to happen around it. An alarm is latched in retained
memory before anything else, then sent by connection and beacon, then felt, then listened to, then written to flash.
After a reset it goes on: the same incident, and the badge asks the station how it stands instead of repeating what
was felt.
"""

import gc

from micropython import const

from protocol import events, kinds
from protocol.custody import Alarm, Errand
from protocol.ident import NONE
from protocol.patterns import PRESSED

from . import retained as kept
from . import trace
from .clock import now_ms
from .outbox import Pending
from .store import JOURNAL

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

    from .audio import Recorder
    from .retained import Retained
    from .settings import Settings
    from .store import Store
    from .uplink import Uplink

_ASK_MS = const(1000)  # between two questions after proof that was too old to be felt
_SAVE_MS = const(1000)
_AGAIN_MS = const(1000)  # presses closer than this are one
_ERRANDS = const(8)
_ERRAND_MS = const(60000)  # a check-in without answer is listened for so long
_JOURNAL_LENGTH = const(34)
_CALM_MS = const(1500)  # a press is answered by itself first, and only then by who is with its wearer
_STRIDE = const(1024)  # beacons that the journal allows at once: an hour and a half of them
_FAILED = const(4)  # alarms that wait for memory
_JOURNAL_AGAIN_MS = const(5000)
_PRESS_AGAIN_MS = const(60000)  # a press that was taken for part of a closed incident is raised anew while it is young

# Which alarms start the microphone at once. A missed check-in does only where it was agreed in advance.
_HEARD = (kinds.SOS, kinds.DURESS, kinds.LANYARD, kinds.FALL)


class Alarms:
    """At most one open incident, and the errands that wait for an answer."""

    def __init__(
        self,
        uplink: "Uplink",
        retained: "Retained",
        store: "Store",
        recorder: "Recorder",
        settings: "Settings",
        play: "Callable[[str], None]",
    ) -> None:
        self.current: "Alarm | None" = None
        self.kind = 0
        self._uplink = uplink
        self._retained = retained
        self._store = store
        self._recorder = recorder
        self._settings = settings
        self._play = play
        self._opening = NONE  # the event that opened it
        self._press = NONE  # the newest further press, until the station has it
        self._press_heard = False  # its beacon was answered already
        self._press_seq = 0  # its number, while it could not even be said yet
        self._press_ageless = False  # a reset came between: nobody knows how long ago it was
        self._pressed_ms = 0
        self._calm_ms = 0
        self._raised_ms = 0
        self._receipted = False
        self._errands: "list[Errand]" = []
        self._errand_ms = 0
        self._asked_ms = 0
        self._saved_ms = 0
        self._journal = b""
        self._journal_ms = 0
        self._reserved = uplink.rotation  # the journal allows beacons up to this number
        self._failed: "list[tuple[int, int | None, bytes, bool, bool]]" = []  # surely() once more
        self._unheard = 0  # why the microphone should be on and could not be
        self._confirm_audio = False  # sound goes on when the station says that the incident is open
        self.make_room: "Callable[[], None] | None" = None  # an update in work (main.py) gives its memory back
        self.on_no_memory: "Callable[[], None] | None" = None  # lets go of what is least missed
        self.contact_ms = now_ms()  # when the station last proved itself

    # --- state

    @property
    def incident(self) -> bytes:
        """The open incident, zeros for none."""
        return self.current.incident if self.current is not None else NONE

    @property
    def level(self) -> int:
        """Its custody level, 0 for none."""
        return self.current.level if self.current is not None else 0

    @property
    def felt(self) -> int:
        """The highest level that the wearer was told of."""
        return self.current.felt if self.current is not None else 0

    @property
    def audible(self) -> bool:
        """An alarm is open of which its wearer feels."""
        return self.current is not None and not self.current.silent

    # --- raising

    def sos(self, retry: bool = False) -> None:
        """The wearer asked for help: again means again. `retry`: the same press, whose first try failed half way."""
        alarm = self.current
        if alarm is None:
            self.open(kinds.SOS, listen=False)
        else:
            again = None
            for event in self._uplink.outbox.events:
                young = event.age_ms(now_ms()) < _AGAIN_MS
                if event.kind == kinds.SOS and event.incident == alarm.incident and young:
                    again = event
            if again is not None:
                self._uplink.repeat(again)
            elif self._press_seq or not retry:
                self._press_again(alarm)
            alarm.silent = False
            self._uplink.hurried = True
            self._retained.want(False)
            self._save()
        self._play(PRESSED)
        self.listen(kinds.SOS)

    def _press_again(self, alarm: Alarm) -> None:
        """A press in an open alarm is an event of its own, with custody of its own: the station may have closed what
        this badge believes open, and would take a repetition for what it has dealt with. What the wearer felt before
        was of the press before."""
        if not self._press_seq:
            self._press_seq = self._uplink.next_seq()
            self._retained.latch_press(self._uplink.boot, self._press_seq)
        event = self._uplink.make_event(kinds.SOS, None, alarm.incident, b"", self._press_seq)
        self._press_seq = 0
        self._press = event.ident
        self._press_heard = False
        self._press_ageless = False
        self._pressed_ms = now_ms()
        alarm.silent = False
        alarm.press_again(now_ms())
        self._said("raised", event)
        self._uplink.say(event)

    def _press_received(self, level: int, fresh: bool) -> None:
        """The station has the newest press; its incident stands at `level`."""
        alarm = self.current
        if alarm is None or self._press_heard:
            return
        if level == kinds.CLOSED and now_ms() - self._pressed_ms < _PRESS_AGAIN_MS:
            # press and closing crossed each other: nobody would act on it, so it becomes an alarm of its own
            self._retained.want()  # whatever happens until it is raised
            self._close()
            self.surely(kinds.SOS)
            return
        pattern = alarm.received(level, fresh)
        self._calm_ms = now_ms() + _CALM_MS
        self._feel(pattern, kinds.RAISED)

    def _feel(self, pattern: "str | None", before: int) -> None:
        """Custody may have moved on from `before`: say so, play what it lets the wearer feel, keep it."""
        alarm = self.current
        if alarm is None:
            return
        if pattern:
            self._play(pattern)
        if alarm.level != before:
            try:
                trace.say("custody", "ident=%s level=%s" % (alarm.incident.hex(), kinds.LEVEL_NAMES[alarm.level]))
            except MemoryError:
                pass
        if alarm.level == kinds.CLOSED:
            self._close()
        elif alarm.level != before or pattern:
            self._save()

    def surely(
        self, kind: int, shown: "int | None" = None, body: bytes = b"", listen: bool = True, errand: bool = False
    ) -> "Pending | None":
        """open(), and again at every tick where memory ran out on the way: what raised it does not happen twice.
        `errand`: its wearer waits for the answer that the imitated act would get."""
        before = self.current
        try:
            event = self.open(kind, shown, body, listen)
            if errand:
                self.errand(event)
            return event
        except Exception as error:
            try:
                if self.on_no_memory is not None:
                    self.on_no_memory()
            except Exception as another:
                trace.fault("shed", another)
            gc.collect()
            trace.fault("alarm", error)
            if self.current is before and len(self._failed) < _FAILED:  # nothing of it is there yet
                self._failed.append((kind, shown, body, listen, errand))
            return None

    def open(self, kind: int, shown: "int | None" = None, body: bytes = b"", listen: bool = True) -> Pending:
        """Raise an alarm; where one is open, add a signal to it."""
        alarm = self.current
        if alarm is not None:
            event = self._uplink.raise_event(kind, shown, alarm.incident, body)
            event.listen = listen
            if listen:
                self._unheard = kind
        else:
            silent = kind == kinds.DURESS
            seq = self._uplink.next_seq()
            self._retained.latch(kind, self._uplink.boot, seq, silent)
            if self.make_room is not None:
                self.make_room()
            event = self._uplink.make_event(kind, shown, NONE, body, seq)
            self.current = Alarm(event.incident, now_ms(), silent)
            self.kind = kind
            self._opening = event.ident
            self._raised_ms = now_ms()
            self._receipted = False
            self._uplink.hurried = not silent
            if listen:
                self._unheard = kind
            self._uplink.say(event)
            self._journal_ms = now_ms() + 300  # after `pressed` was felt: a flash that erases stops everything
        self._said("raised", event)
        if listen:
            self.listen(kind)
        return event

    def listen(self, reason: int) -> None:
        """Let the station hear the room, because of an act of the wearer or an agreed missed check-in."""
        # whatever goes wrong here (memory, most likely) must not cost the alarm; tick() tries again
        self._unheard = reason
        try:
            self._recorder.begin(reason, self.incident)
            self._unheard = 0
        except Exception as error:
            trace.fault("listen", error)
            gc.collect()

    def _said(self, name: str, event: Pending) -> None:
        try:
            trace.say(name, "kind=%s ident=%s" % (kinds.name(event.kind), event.ident.hex()))
        except MemoryError:
            pass  # what it is about is done

    def _told(self, name: str, ident: bytes) -> None:
        try:
            trace.say(name, "ident=" + ident.hex())
        except MemoryError:
            pass

    def errand(self, event: Pending, test: bool = False) -> None:
        """The wearer waits for the answer to this event."""
        self._said("sent", event)
        if len(self._errands) >= _ERRANDS:
            self._errands.pop(0)
        self._errands.append(Errand(event.ident, now_ms(), test))
        self._errand_ms = now_ms()

    # --- answers

    def held(self, ident: bytes) -> None:
        """A hub has an event on disk."""
        event = self._uplink.outbox.held(ident, now_ms())
        if event is None:
            return
        self._told("held", ident)
        if self.current is not None and event.incident == self.current.incident:
            self.current.held()

    def receipt(self, ident: bytes, level: int, fresh: bool, ready: bool = True) -> None:
        """The station has an event on disk; its incident stands at `level`. `ready`: so is its hub, for a test."""
        event = self._uplink.outbox.settle(ident)
        if event is not None:
            self._told("received", ident)
        if ident == self._opening:
            self._receipted = True
        if ident == self._press and ident != NONE:
            self._press_received(level, fresh)
            if self._press == ident:
                self._press = NONE
        answered = None
        for errand in self._errands:
            if errand.ident == ident:
                answered = errand
        if answered is not None:
            pattern = answered.proved(fresh, ready)
            if pattern:
                self._play(pattern)
            self._errands.remove(answered)
        if event is not None and level == kinds.CLOSED and self._is_signal(event):
            # it and the closing crossed each other: nobody would act on it, so it becomes an alarm of its own
            if event.age_ms(now_ms()) < _PRESS_AGAIN_MS:
                self._close()
                self.surely(event.kind, event.shown, event.body, event.listen or event.kind in _HEARD)

    def _is_signal(self, event: Pending) -> bool:
        """Whether an event is a further alarm in the open incident, but for a press, which has custody of its own."""
        return (
            self.current is not None
            and event.incident == self.current.incident
            and event.kind in kinds.ALARMS
            and event.ident != self._opening
            and event.kind != kinds.SOS
        )

    def _unsaid(self) -> bool:
        """Whether the station has yet to hear of something in the open incident."""
        for event in self._uplink.outbox.events:
            if not event.told and self._is_signal(event):
                return True
        return False

    def answered(self, ident: bytes, level: int, fresh: bool, announced: bytes = NONE) -> None:
        """The station has the beacon of an event. The event itself goes on waiting for its receipt: of what was heard
        by beacon the station knows the kind and no more. `announced`: the event that the answered beacon was of."""
        if self._press != NONE and self._press in (ident, announced) and level >= kinds.RECEIVED:
            self._press_received(level, fresh)
            self._press_heard = True
        for errand in self._errands:
            if errand.ident == ident and level >= kinds.RECEIVED:
                self._uplink.outbox.heard(ident)
                pattern = errand.proved(fresh)
                if pattern:
                    self._play(pattern)
        event = self._uplink.outbox.find(ident)
        if event is not None and level >= kinds.RECEIVED:
            event.told = True
            if event.shown == kinds.CHECK_IN:
                event.quiet = True  # nobody waits for more of it, duress or not
        if event is not None and event.kind == kinds.SOS and event.incident == self.incident:
            ident = self.incident  # by beacon the station cannot know which incident a further press belongs to
        self.proved(ident, level, fresh, False)

    def waits_for_answer(self, now: int) -> bool:
        """Whether the wearer waits for something that a broadcast could tell."""
        return self.current is not None or (bool(self._errands) and now - self._errand_ms < _ERRAND_MS)

    def rejected(self, ident: bytes) -> None:
        """The station will never take an event."""
        if self._uplink.outbox.settle(ident) is not None:
            if ident == self._opening:
                self._receipted = True
            if ident == self._press:
                self._press = NONE
            self._told("rejected", ident)

    def proved(self, incident: bytes, level: int, fresh: bool, returned: bool, young: bool = False) -> None:
        """The station says how an incident stands; `young`: it was raised less than half an hour ago."""
        alarm = self.current
        if alarm is None or incident != alarm.incident:
            return
        if self._press_seq or (self._press != NONE and (not self._press_heard or level == kinds.CLOSED)):
            return  # what is said while a press is on its way is of the press before
        if level == kinds.CLOSED and self._unsaid():
            return  # the closing does not know of what is on its way
        before = alarm.level
        felt = alarm.proved(level, fresh and now_ms() >= self._calm_ms, returned)
        if self._confirm_audio and fresh and young and kinds.RECEIVED <= alarm.level < kinds.CLOSED:
            self._confirm_audio = False
            self.listen(self.kind)
        self._feel(felt, before)

    def _close(self) -> None:
        """The incident is over. Nothing that fails on the way leaves half of it open."""
        incident = self.incident
        self._uplink.outbox.quieten(incident)
        self.current = None
        self._opening = NONE
        self._press = NONE
        self._press_seq = 0
        self._calm_ms = 0
        self._unheard = 0
        self._confirm_audio = False
        self._uplink.hurried = False
        self._retained.close()
        self._journal_ms = now_ms()
        if self._recorder.incident == incident:
            try:
                self._recorder.end()
            except Exception as error:  # the microphone is closed first of all
                gc.collect()
                trace.fault("listen", error)

    # --- memory

    def _flags(self) -> int:
        flags = 0
        if self.current is not None:
            flags = kept.OPEN
            if self.current.silent:
                flags |= kept.SILENT
            if self._receipted:
                flags |= kept.RECEIPTED
            if self._press != NONE or self._press_seq:
                flags |= kept.PRESSED_AGAIN
            if self._recorder.running and self._recorder.incident == self.current.incident:
                flags |= kept.CAPTURING
        return flags

    def _save(self) -> None:
        """Keep the alarm's state in retained memory now, and on flash soon."""
        alarm = self.current
        if alarm is not None:
            # what was recorded for something else, a spoken note, is no reason to hear this alarm's room
            ours = self._recorder.incident == alarm.incident
            self._retained.update(
                self._flags(),
                alarm.felt,
                alarm.level,
                (now_ms() - self._raised_ms) // 1000,
                self._recorder.reason if ours else self._unheard,
            )
        self._retained.keep_rotation(self._uplink.rotation)
        self._retained.write()
        if not self._journal_ms:
            self._journal_ms = now_ms() + _SAVE_MS

    def _write_journal(self) -> bool:
        """Whether flash says what is."""
        alarm = self.current
        payload = b""
        if alarm is not None:
            age = (now_ms() - self._raised_ms) // 1000
            payload = (
                bytes((self._flags() & ~kept.CAPTURING, self.kind))
                + self._opening
                + alarm.incident
                + self._press
                + bytes((alarm.felt, alarm.level))
                + min(age, 0xFFFFFFFF).to_bytes(4, "big")
                + ((self._uplink.rotation + _STRIDE) & 0xFFFF).to_bytes(2, "big")
            )
        # its age alone is not worth a write; the numbers of its beacons are, when those that it allows are used up
        if payload[:28] != self._journal[:28] or bool(payload) != bool(self._journal) or (payload and self._scarce()):
            if not payload:
                self._store.remove(JOURNAL)
            elif not self._store.write(JOURNAL, payload):
                return False
            else:
                self._reserved = (self._uplink.rotation + _STRIDE) & 0xFFFF
            self._journal = payload
        return True

    def _scarce(self) -> bool:
        """Whether the beacons that the journal allows are nearly used up."""
        return not _STRIDE // 16 < (self._reserved - self._uplink.rotation) & 0xFFFF <= _STRIDE

    def resume(self, latched: bool = False) -> bool:
        """Go on with an alarm that a reset interrupted, or that was `latched` and no more; whether there is one."""
        retained = self._retained
        lost_power = False
        if latched or (retained.valid and retained.open):
            flags, kind, felt, age_s = retained.flags, retained.kind, retained.felt, retained.age_s
            opening, incident, press = retained.ident, retained.incident, retained.press
            again = bool(flags & kept.CAPTURING) or not flags & kept.RECEIPTED
            reason = retained.reason
        else:
            journal = self._store.read(JOURNAL)
            if journal is None or len(journal) != _JOURNAL_LENGTH:
                return False
            flags, kind, felt = journal[0], journal[1], journal[26]
            opening, incident, press = journal[2:10], journal[10:18], journal[18:26]
            age_s = int.from_bytes(journal[28:32], "big")
            lost_power = True
            again = False
            reason = 0
            # how long the power was off nobody here knows: the station's clock says whether the incident is young
            self._confirm_audio = True
            retained.restore_alarm(kind, opening, incident, press, flags, felt)
            self._journal = journal
            # above every number that a beacon of this alarm had: nothing that was said of an older one is fresh again
            self._uplink.rotation = self._reserved = int.from_bytes(journal[32:34], "big")
        now = now_ms()
        self.current = Alarm(incident, now, bool(flags & kept.SILENT), felt)
        self.kind = kind
        self._opening = opening
        self._raised_ms = now - age_s * 1000
        self._receipted = bool(flags & kept.RECEIPTED)
        self._uplink.hurried = not self.current.silent
        self._uplink.former_boot = opening[:6]
        if not self._receipted:
            self._opening_again(now).ageless = lost_power
        if flags & kept.PRESSED_AGAIN and press != NONE:
            self._press = press
            self._pressed_ms = now
            self._press_ageless = True  # the record has the age of the alarm, not that of the press
            self._press_waits(now)
        if lost_power:
            self._write_journal()  # before a beacon has one of the numbers that the next power cut would begin with
        if kind == kinds.MISSED_CHECK_IN and not reason:
            self._confirm_audio = False  # whether it was agreed is not known any more
            again = False
        if again:
            self.listen(reason or kind)
        trace.say("resumed", "kind=%s ident=%s felt=%d" % (kinds.name(kind), incident.hex(), felt))
        return True

    # --- time

    def _opening_again(self, now: int) -> Pending:
        """Let the event that opened the alarm wait once more, after a reset or when memory ran out."""
        shown = kinds.CHECK_IN if self.kind == kinds.DURESS else self.kind
        body = bytes((shown,)) if self.kind == kinds.DURESS else b""
        event = Pending(self.kind, self._opening, now, shown, self.incident, body, now - self._raised_ms)
        self._uplink.outbox.add(event)
        return event

    def _press_waits(self, now: int) -> None:
        """Let the newest press wait once more: after a reset, or when memory ran out between its receipt and what that
        means."""
        event = Pending(kinds.SOS, self._press, now, kinds.SOS, self.incident, b"", now - self._pressed_ms)
        event.ageless = self._press_ageless
        self._uplink.outbox.add(event)

    def tick(self, now: int) -> None:
        """What is due."""
        if self._failed:
            self.surely(*self._failed.pop(0))
        elif self.current is None and self._retained.open:
            self.resume(True)  # memory ran out right after it was latched
        alarm = self.current
        if alarm is not None:
            if not self._receipted and self._uplink.outbox.find(self._opening) is None:
                self._opening_again(now)
            if self._press != NONE and self._uplink.outbox.find(self._press) is None:
                self._press_waits(now)
            pattern, _ = alarm.poll(now)
            if pattern:
                self._play(pattern)
            if self._unheard and now - self._saved_ms >= _SAVE_MS:
                self.listen(self._unheard)
            if alarm.wants_proof and now - self._asked_ms >= _ASK_MS:
                self._asked_ms = now
                self._uplink.ask()
        for errand in self._errands:
            pattern, _ = errand.poll(now)
            if pattern:
                self._play(pattern)
        heard_ms = max(self.contact_ms, self._recorder.asked_ms)
        if self._recorder.running and now - heard_ms > self._settings.ms("audio_max_minutes"):
            trace.say("no_contact", "capture ends")
            self._recorder.end()
            self._save()
        if now - self._saved_ms >= _SAVE_MS:
            self._saved_ms = now
            self._retained_only()
            if alarm is not None and not self._journal_ms and self._scarce():
                self._journal_ms = now
        if self._journal_ms and now >= self._journal_ms:
            self._journal_ms = now + _JOURNAL_AGAIN_MS
            if self._write_journal():
                self._journal_ms = 0

    def _retained_only(self) -> None:
        due = self._journal_ms
        self._save()
        self._journal_ms = due


def flags_of(alarms: Alarms, in_visit: bool, recording: bool, connected: bool) -> int:
    """The flags of an event of protocol.events."""
    flags = min(alarms.felt, 7) << events.FELT_SHIFT
    if in_visit:
        flags |= events.IN_VISIT
    if recording:
        flags |= events.CAPTURING
    if not connected:
        flags |= events.ON_BEACON
    return flags
