"""The badge: its parts put together, what each act means, and what each word of the station does.

    hand -> buttons -> gestures -> act() ------> alarms, visits -> uplink -> links -> radio
                                                    ^                          |
    motor <- haptic <- patterns of protocol/ -------+---- station() <----------+

No word from hub or station reaches the microphone: only acts of the wearer and an agreed missed check-in call
Recorder.begin (alarms.py, visits.py).
"""

import gc
import json

from micropython import const

from protocol import downlink, events, kinds, link
from protocol.adpcm import SAMPLES
from protocol.crypto import Forged
from protocol.events import Malformed
from protocol.fresh import ALARM_MS, PROTECTED_MS
from protocol.keys import BadgeKeys
from protocol.patterns import BATTERY_LOW, NOT_PROTECTED
from protocol.protection import LIMIT_MS, NO, UNKNOWN, Protection
from protocol.session import BadgeLink

from . import gestures, store, trace
from . import settings as setting
from .alarms import Alarms, flags_of
from .audio import Recorder
from .battery import LEVELS, Battery
from .clock import now_ms
from .lanyard import Lanyard
from .links import Links, Peer
from .radio import Radio, RadioFailed
from .retained import CAUSE_PROVISIONED, CAUSE_TASK, CAUSE_WORN_OUT, Retained
from .uplink import Uplink
from .visits import Visits

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

    from .fall import ManDown
    from .gestures import Recogniser
    from .haptic import Haptic
    from .outbox import Pending
    from .settings import Settings
    from .store import Identity, Store

TICK_MS = 50
_PAIRING_MS = const(60000)
# more for who pairs, before it has to have proved itself: a passkey is twenty exchanges, 2.4 s at 30 ms, and only then
# does a hub look for our service. Only inside the window, and one connection is always kept free
_PAIRING_PEER_MS = const(7000)
_SOS_TRIES = const(20)  # then a reset, which finds the latched alarm
_WATCH_MS = const(30000)  # the radio's handler is set again so often
_RESTART_MS = const(60000)  # a radio that failed is not restarted more often
_OFF_MS = const(4000)  # going off duty waits so long for the station to have heard of it
_NOTE_MS = const(5000)  # between two notes of the last words
_DEAF_MS = const(120000)  # no connection came for so long although nobody answers: restart the radio


def _without_claim(level: int) -> int:
    """What of a level is still true when its operator has gone since."""
    return kinds.RECEIVED if kinds.RECEIVED < level < kinds.CLOSED else level


class Badge:
    """A provisioned badge on duty."""

    def __init__(
        self,
        who: "Identity",
        radio: Radio,
        links: Links,
        recogniser: "Recogniser",
        haptic: "Haptic",
        keep: "Store",
        retained: Retained,
        recorder: Recorder,
        settings: "Settings",
        battery: Battery,
        lanyard: Lanyard,
        boot: bytes,
        board: "Any",
    ) -> None:
        now = now_ms()
        self._board = board
        self.who = who
        self.settings = settings
        self.radio = radio
        self.links = links
        self.battery = battery
        self.lanyard = lanyard
        self.keys = BadgeKeys(who.root)
        self.protection = Protection(now)
        self.recorder = recorder
        self._recogniser = recogniser
        self._haptic = haptic
        self._store = keep
        self._retained = retained
        self._last_down = 0
        self._returned = 0  # number of the newest message that said that an operator had gone
        self._returned_ms = 0  # and when it came
        self._orders = {downlink.SETTINGS: 0, downlink.GROUP_KEY: 0, downlink.NOT_PROTECTED: 0}
        self._sos_tries = 0
        self._pairing_ms = 0
        self._fall: "ManDown | None" = None
        self._off_ms = 0  # when to go to sleep at the latest; 0: on duty
        self._off_event: "Pending | None" = None
        self._noted_ms = now
        self._refused = 0  # version of the settings that were refused last
        self.sleep: "Callable[[], None]"
        self._enrolments: "dict[bytes, Pending]" = {}
        self._watched_ms = now
        self._restarted_ms = -_RESTART_MS
        self._connected_ms = now
        self._heap_free = gc.mem_free()
        self.reset: "Callable[[int], None]"

        rotation = retained.rotation + 16 if retained.valid and retained.open else 0
        self.uplink = Uplink(self.keys, who.badge, who.group, boot, rotation, radio, links)
        self.alarms = Alarms(self.uplink, retained, keep, recorder, settings, haptic.play)
        self.visits = Visits(self.uplink, self.alarms, recorder, settings, retained, haptic.play)
        self.uplink.battery = lambda: battery.percent
        self.uplink.flags = self._flags
        self.uplink.status = self._status
        links.open_session = self.open_session
        links.on_message = self._message
        links.on_connections = self._connections
        links.on_passkey = self._passkey
        links.on_heard = self._heard
        links.next_audio = recorder.next
        links.audio_waits = recorder.waits
        recorder.on_begin = self._capture_begins
        recorder.on_end = self._capture_ended
        recorder.on_packets = links.wake
        recorder.prepare(self.keys.audio, who.badge, boot, board.MIC_GAIN_BITS)

    def begin(self, reset_cause: int) -> None:
        """Go on with what a reset interrupted, and be heard. Raises RadioFailed."""
        retained = self._retained
        cause = retained.cause
        task, faults, handler, radio, minutes, heap = retained.last_words()
        retained.set_cause(0)
        if not retained.wanted or (retained.valid and retained.open):
            self.alarms.resume()
        if retained.wanted:
            # held in standby: before anything else, and however often that resets the badge. Or a reset came between
            # hand and alarm: then in what was open already
            self._sos()
        self.visits.resume()
        self.apply_settings()
        self.uplink.rotate(newest=True)
        body = events.pack_booted(reset_cause, cause, task, faults, handler, radio, minutes, heap)
        self.uplink.raise_event(kinds.BOOTED, body=body)
        if cause == CAUSE_PROVISIONED:
            # keys came over the cable: as much of a physical act as the button, and a hub is to be introduced next
            self._open_window()
        words = (self.who.badge, self.uplink.boot.hex(), reset_cause, task, faults, minutes)
        trace.say("booted", "badge=%d boot=%s cause=%d task=%d faults=%d minutes=%d" % words)

    def apply_settings(self) -> None:
        """Let changed settings take effect."""
        self._recogniser.hold_to_sos_ms = self.settings.ms("hold_to_sos")
        self.battery.levels = (int(self.settings.number("battery_low")), LEVELS[-1])
        wanted = self.settings.on("fall_alarm") and getattr(self._board, "ACCEL", None) is not None
        if wanted and self._fall is None:
            from .fall import ManDown  # loaded where it is wanted: most badges need its memory for other things

            self._fall = ManDown(self._board, self._retained, self._haptic.play, now_ms())
        elif not wanted and self._fall is not None:
            self._fall.close()
            self._fall = None

    # --- acts

    def act(self, act: str) -> None:
        """What the wearer just did (gestures.py)."""
        alarms = self.alarms
        visits = self.visits
        if act == gestures.SOS:
            self._retained.want()  # until it is raised: tick() does it where this does not come so far
            self._sos()
        try:
            trace.say("act", "name=" + act)
        except MemoryError:
            pass  # an act happens once, and a duress is one too
        self._stay()
        if self._fall is not None and self._fall.warning and self._answer(act, self._fall):
            return
        if act == gestures.CHECK_IN:
            self._check_in()
        elif act == gestures.EXTEND:
            visits.extend()
        elif act == gestures.AMBER:
            visits.amber()
        elif act == gestures.SELF_TEST:
            alarms.errand(self.uplink.raise_event(kinds.TEST), test=True)
        elif act == gestures.HOLD or act == gestures.DURESS_HOLD:
            self._hold(act == gestures.DURESS_HOLD)
        elif act == gestures.PAIR:
            self._open_window()
        elif act == gestures.OFF_DUTY:
            self.standby()
        elif act == gestures.DURESS_CHECK_IN:
            self._duress(kinds.CHECK_IN, visits.duress())

    def _check_in(self) -> None:
        if not self.visits.check_in():  # told without a visit too: its duress is, and would stand out
            self.alarms.errand(self.uplink.raise_event(kinds.CHECK_IN))

    def _sos(self) -> None:
        # whatever fails on the way (memory, most likely) must not cost the alarm: it is latched, and tried again
        try:
            self.alarms.sos(retry=self._sos_tries > 0)
            self._sos_tries = 0
        except Exception as error:
            trace.fault("sos", error)
            gc.collect()
            self._sos_tries += 1
            if self._sos_tries > _SOS_TRIES:
                self.reset(CAUSE_TASK)

    def _answer(self, act: str, fall: "ManDown") -> bool:
        """The wearer is asked after a fall: whether this act was the answer. It feels and looks like a check-in."""
        if act in (gestures.CHECK_IN, gestures.HOLD):
            fall.stop()
            self._check_in()
            return True
        if act in (gestures.DURESS_CHECK_IN, gestures.DURESS_HOLD):
            fall.stop()
            self._duress(kinds.CHECK_IN, self.visits.duress())
            return True
        if act == gestures.SOS:
            fall.stop()
        return False

    # --- off duty

    def occupied(self) -> str:
        """Why the badge may not leave its wearer now, "" if it may."""
        if self.alarms.current is not None:
            return "an alarm is open"
        if self.visits.active:
            return "a visit is running, end it first"
        if self._fall is not None and self._fall.warning:
            return "a fall is not answered"
        return ""

    def standby(self) -> str:
        """Go off duty; why not, where that may not be. It is felt as what it is: no path to the station."""
        why = self.occupied()
        if why:
            trace.say("on_duty", "why=" + why.replace(" ", "_"))
        elif not self._off_ms:
            self._off_ms = now_ms() + _OFF_MS
            self._off_event = self.uplink.raise_event(kinds.OFF_DUTY)
            self._haptic.play(NOT_PROTECTED)
            trace.say("standby")
        return why

    def _stay(self) -> None:
        """A hand on the badge: it does not fall asleep under it."""
        if self._off_ms:
            self._off_ms = 0
            self._off_event = None
            self.protection.state = UNKNOWN  # so that the wearer feels where they stand
            trace.say("on_duty", "why=act")

    def _fall_asleep(self, now: int) -> None:
        if self.occupied():  # the station has armed a visit meanwhile
            self._stay()
            return
        event = self._off_event
        known = event is None or event.settled
        if (known and self._haptic.idle) or now >= self._off_ms:
            self.recorder.end()
            self._save_bonds()
            self._retained.clear()
            self._retained.write()
            self.radio.stop()
            self.sleep()

    def _hold(self, duress: bool) -> None:
        if not self.alarms.audible:
            self.visits.hold(duress)
        elif duress:
            self._duress(kinds.CANCEL, events.pack_duress(kinds.CANCEL, b""))
        else:
            self.alarms.errand(self.uplink.raise_event(kinds.CANCEL, incident=self.alarms.incident))

    def _duress(self, shown: int, body: bytes) -> None:
        self.alarms.surely(kinds.DURESS, shown, body, errand=True)

    def _open_window(self) -> None:
        self._pairing_ms = now_ms() + _PAIRING_MS
        self._enrolments = {}
        self.uplink.pairing = True
        trace.say("pairing", "state=open")
        self.uplink.rotate()

    def low_battery(self, level: int) -> None:
        """The battery has fallen to a level (%)."""
        self._haptic.play(BATTERY_LOW)
        self.uplink.raise_event(kinds.BATTERY, body=bytes((level,)))

    # --- what the uplink says of the badge

    def _flags(self) -> int:
        return flags_of(self.alarms, self.visits.active, self.recorder.running, bool(self.links.established()))

    def _status(self) -> "tuple[bytes, bytes]":
        # the heap as it was after the last collection: what lies about as garbage is free too
        body = events.pack_status(
            self._last_down,
            self.alarms.level,
            self.visits.visit.number,
            self.settings.version,
            self._heap_free,
            self._refused,
            self.uplink.group_tag,
        )
        return self.alarms.incident, body

    def note_heap(self, free: int) -> None:
        """Free bytes after a collection."""
        self._heap_free = free

    def shed(self) -> None:
        """Memory is wanted: let an event go that is least missed."""
        if self.uplink.outbox.shed(alarms=False):
            trace.say("shed", "events=%d" % len(self.uplink.outbox.events))

    def _capture_begins(self, track: "Any", reason: int, incident: bytes) -> None:
        body = events.pack_audio(track.number, reason, 0, 0, SAMPLES)
        self.uplink.raise_event(kinds.AUDIO_START, incident=incident, body=body)

    def _capture_ended(self, track: "Any", reason: int, incident: bytes, dropped: int) -> None:
        body = events.pack_audio(track.number, reason, track.made, dropped, SAMPLES)
        self.uplink.raise_event(kinds.AUDIO_END, incident=incident, body=body)

    # --- connections

    def open_session(self) -> BadgeLink:
        """The badge's side of a new connection."""
        return BadgeLink(self.who.badge, self.uplink.boot, self.keys.link, self.radio.random, now_ms())

    def _connections(self) -> None:
        self._connected_ms = now_ms()
        self._choose_listener()
        # a connection has stopped the advertising
        try:
            self.uplink.rotate()
        except RadioFailed as error:
            self._heal(error)

    def _choose_listener(self) -> None:
        """Sound goes to one hub: to the one that reaches the station, and stays there while it does."""
        best = None
        for peer in self.links.established():
            if best is None or (peer.uplink and not best.uplink):
                best = peer
        self.recorder.session(best)

    def _passkey(self, connection: int, action: int) -> None:
        if self.uplink.pairing:
            peer = self.links.peers.get(connection)
            if peer is not None:
                peer.session.vouch(now_ms() + _PAIRING_PEER_MS)
            self.radio.passkey(connection, action, self.keys.passkey())
        else:
            trace.say("pairing", "state=refused")
            self.radio.disconnect(connection)

    def _message(self, peer: Peer, kind: int, body: bytes) -> None:
        try:
            if kind == link.STATION:
                self._station(peer, body)
            elif kind == link.HELD:
                for ident in link.unpack_held(body):
                    self.alarms.held(ident)
            elif kind == link.AUDIO_ACK:
                self.recorder.acknowledged(*link.unpack_audio_ack(body))
            elif kind == link.ESTABLISHED:
                trace.say("session", "connection=%d hub=%s" % (peer.connection, peer.session.hub_id.hex()))
                for event in self.uplink.outbox.events:
                    peer.want(event)
                peer.status = True
                self._choose_listener()
            elif kind == link.READY:
                peer.uplink, _ = link.unpack_ready(body)
                self._choose_listener()
            elif kind == link.UPLINK:
                if len(body) != 1:
                    raise Malformed("uplink")
                peer.uplink = bool(body[0])
                self._choose_listener()
            elif kind == link.ENROL_REQUEST:
                self._enrol(peer, body)
        except Malformed as error:
            # authenticated and wrong: a hub of a newer version, or a defect; said once in a while
            trace.fault("message", error)

    def _enrol(self, peer: Peer, hub_id: bytes) -> None:
        if not self.uplink.pairing:
            return
        event = self._enrolments.get(hub_id)
        if event is None:
            if len(self._enrolments) >= 4:
                return  # more hubs than a person pairs in a minute
            event = self.uplink.raise_event(kinds.ENROL, body=hub_id)
            self._enrolments[hub_id] = event
            trace.say("enrolling", "hub=" + hub_id.hex())
        peer.session.enrol(event.ident, self.uplink.seal(event))

    # --- the station's words

    def _station(self, peer: Peer, blob: bytes) -> None:
        try:
            down = downlink.open_down(self.keys.down, self.who.badge, blob)
        except (Forged, Malformed):
            peer.session.counters["forged"] += 1
            return
        now = now_ms()
        peer.session.vouch(now)
        if not self.uplink.names_this_run(down):
            return
        age = self.uplink.sent.age(down.echo, now)
        fresh = age is not None and 0 <= age <= ALARM_MS
        newer = down.number > self._last_down
        self._last_down = max(self._last_down, down.number)
        self._obey(down, age, fresh, newer)
        if age is not None and 0 <= age < LIMIT_MS:
            self.alarms.contact_ms = now
            pattern = self.protection.proof(now - age)
            if pattern:
                self._feel(pattern)

    def _heard(self, data: bytes) -> None:
        found = self.uplink.open_answer(data)
        if found is None:
            return
        ident, level, age, announced = found
        now = now_ms()
        fresh = age is not None and 0 <= age <= ALARM_MS
        if fresh:
            self.alarms.contact_ms = now
        if self._returned and (age is None or now - age <= self._returned_ms):
            level = _without_claim(level)  # to a beacon from before the operator went, or it may be
        self.alarms.answered(ident, level, fresh, announced)

    def _obey(self, down: downlink.Down, age: "int | None", fresh: bool, newer: bool) -> None:
        kind = down.type
        body = down.body
        if kind == downlink.RECEIPT:
            ident, incident, level, flags = downlink.unpack_receipt(body)
            if down.number < self._returned:
                level = _without_claim(level)
            if flags & downlink.BY_BEACON:
                self.alarms.answered(ident, max(level, kinds.RECEIVED), fresh)
            else:
                self.alarms.receipt(ident, level, fresh, not flags & downlink.NOT_READY)
            self._state(down, incident, level, flags, fresh, newer)
        elif kind == downlink.PROOF or kind == downlink.STATE:
            incident, level, flags = downlink.unpack_state(body)
            self._state(down, incident, level, flags, fresh, newer)
        elif kind == downlink.REJECTED:
            if len(body) != 8:
                raise Malformed("rejected")
            self.alarms.rejected(body)
        elif kind == downlink.VISIT:
            # times left are worth something only while they are young
            if age is not None and 0 <= age <= PROTECTED_MS:
                self.visits.ordered(down.number, body, age)
        elif kind in self._orders and down.number > self._orders[kind]:
            self._orders[kind] = down.number
            if kind == downlink.SETTINGS:
                self._new_settings(body)
            elif kind == downlink.GROUP_KEY:
                self._new_group_key(body)
            elif fresh:
                # the planned visit began while nobody heard this badge
                self.protection.state = NO
                self._feel(NOT_PROTECTED)

    def _state(self, down: downlink.Down, incident: bytes, level: int, flags: int, fresh: bool, newer: bool) -> None:
        returned = bool(flags & downlink.RETURNED)
        if returned and not newer:
            return  # an older message never lowers a level
        if returned:
            self._returned = down.number
            self._returned_ms = now_ms()
        elif down.number < self._returned:
            level = _without_claim(level)
        self.alarms.proved(incident, level, fresh, returned, bool(flags & downlink.YOUNG))

    def _new_settings(self, body: bytes) -> None:
        if len(body) < 2:
            raise Malformed("settings")
        version = body[0] << 8 | body[1]
        if version == self.settings.version or version == self._refused:
            return
        try:
            self.settings.update(setting.check_all(json.loads(body[2:])))
        except (setting.BadSetting, ValueError) as error:
            trace.fault("settings", error)
            self._refused = version  # said in every status, so that the station stops sending and shows it
            return
        self.settings.version = version
        self.keep_settings()

    def keep_settings(self) -> None:
        """Settings have changed: store them and let them take effect."""
        self._store.keep_settings(self.settings)
        self.apply_settings()
        trace.say("set", "version=%d" % self.settings.version)

    def _new_group_key(self, body: bytes) -> None:
        if len(body) != 16:
            raise Malformed("group key")
        if body != self.who.group:
            self.who.group = bytes(body)
            self._store.write(store.KEYS, self.who.pack())
            self.uplink.regroup(body)
            trace.say("group_key", "state=new")

    def _feel(self, pattern: str) -> None:
        trace.say("protection", "state=" + pattern)
        self._haptic.play(pattern)

    # --- time

    def tick(self, now: int) -> None:
        """Everything that is due; called every TICK_MS."""
        if self._sos_tries or self._retained.wanted:
            self._sos()
        self.alarms.tick(now)
        self.visits.tick(now)
        pattern, _ = self.protection.poll(now)
        if pattern:
            self._feel(pattern)
        if self.uplink.pairing and now >= self._pairing_ms:
            self.uplink.pairing = False
            trace.say("pairing", "state=closed")
        if self.lanyard.pulled(now):
            self._stay()
            self.alarms.surely(kinds.LANYARD)
        fall = self._fall
        if fall is not None and fall.tick(now):
            self._stay()
            self.alarms.surely(kinds.FALL)
            fall.stop()
        if now - self._noted_ms >= _NOTE_MS:
            self._noted_ms = now
            self._retained.note(
                trace.faults(), self.radio.handler_faults, self.radio.restarts, now // 60000, self._heap_free
            )
        if self._off_ms:
            self._fall_asleep(now)
        self.radio.listen(self.alarms.waits_for_answer(now) and not self.links.established())
        try:
            if not self.links.poll():
                raise RadioFailed("disconnect")
            if self.uplink.worn_out and self.alarms.current is None and not self._recogniser.busy():
                self.reset(CAUSE_WORN_OUT)
            self.uplink.tick(now)
            if now - self._watched_ms >= _WATCH_MS:
                self._watched_ms = now
                self.radio.watch()
                self._save_bonds()
            if self.protection.state == NO and not self.links.peers and now - self._connected_ms >= _DEAF_MS:
                self._connected_ms = now
                raise RadioFailed("deaf")
        except RadioFailed as error:
            self._heal(error)

    def _save_bonds(self) -> None:
        bonds = self.radio.bonds
        if bonds.changed:
            bonds.changed = False
            self._store.write(store.BONDS, bonds.pack())

    def _heal(self, error: RadioFailed) -> None:
        """Restart the radio; where that fails too, try again at the next failure."""
        trace.fault("radio", error)
        now = now_ms()
        if now - self._restarted_ms < _RESTART_MS:
            return
        self._restarted_ms = now
        trace.say("radio", "state=restart")
        self.links.forget_all()
        self.recorder.session(None)
        try:
            self.radio.restart()
            self.uplink.rotate()
        except (OSError, RadioFailed) as again:
            trace.fault("radio", again)
