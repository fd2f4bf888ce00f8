"""Every connection with its session, and the one sender that serves them all.

Order of sending: what a session itself says (greeting, pong), then waiting events by priority, then a status, then
sound. A value that the stack has no room for is offered again, control after 1 ms and sound after 5 ms, so that the
next free buffer goes to control; and sound may take only a part of the stack's buffers, the rest is reserved. An
event is sealed when its turn comes and not before: its age is true and its number fresh.

A peer that has proved nothing after 3 s is disconnected. The last connection is never left to anybody: when all are
taken, the oldest that has proved nothing goes, or else the newest.
"""

import asyncio

from micropython import const

from protocol import chunks, kinds, link
from protocol.session import BadgeLink

from . import radio as air
from . import trace
from .clock import MASK, now_ms, ticks
from .outbox import Pending

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

    from .radio import Radio

_CONTROL_RETRY_MS = const(1)
_AUDIO_RETRY_MS = const(5)
_AUDIO_BURST = const(6)  # of the stack's ten buffers of 244 bytes; four stay for control
_AUDIO_REFILL_MS = const(5)  # 200 packets a second at the most: five times live
_DROP_MS = const(6000)  # a stack that needs longer for a disconnect is stuck
_SLOW_MTU_CHUNKS = const(64)  # chunks that wait on one connection; more means it does not drain


class Peer:
    """One connection."""

    def __init__(self, connection: int, session: BadgeLink) -> None:
        self.connection = connection
        self.session = session
        self.events: "list[Pending]" = []  # to be sent here, first by priority
        self.status = False  # a status is to be sent here
        self.uplink = False  # the hub says that it has proof of the station
        self.waiting: "list[bytes]" = []  # chunks that were cut and must go in order
        self.audio: "bytes | None" = None  # one chunk of sound that the stack had no room for
        self.dropped_ms = 0  # when it was told to go

    def want(self, event: Pending) -> None:
        """Let an event be sent here, unless it waits already."""
        if event in self.events:
            return
        at = len(self.events)
        while at and self.events[at - 1].priority > event.priority:
            at -= 1
        self.events.insert(at, event)


class Links:
    """All connections. What arrives and what is needed goes through the handlers set by the application."""

    def __init__(self, radio: "Radio") -> None:
        self.peers: "dict[int, Peer]" = {}
        self.on_connections: "Callable[[], None]"  # one came or went: advertise again
        self.open_session: "Callable[[], BadgeLink]"  # set before anything may arrive
        self.on_message: "Callable[[Peer, int, bytes], None]"
        self.on_passkey: "Callable[[int, int], None]"
        self.on_heard: "Callable[[bytes], None]"
        self.event_body: "Callable[[Pending], bytes]"
        self.status_body: "Callable[[], bytes]"
        self.next_audio: "Callable[[Peer], bytes | None]"
        self.audio_waits: "Callable[[Peer], bool]"
        self._radio = radio
        self._event = asyncio.Event()
        self._tokens = _AUDIO_BURST
        self._refilled = ticks()

    # --- who is there

    def established(self) -> "list[Peer]":
        """The peers with a session."""
        return [peer for peer in self.peers.values() if peer.session.established and not peer.dropped_ms]

    def offer(self, event: Pending) -> None:
        """Send an event on every session."""
        for peer in self.established():
            peer.want(event)
        self._event.set()

    def offer_status(self) -> bool:
        """Send a status on every session; False when there is none."""
        peers = self.established()
        for peer in peers:
            peer.status = True
        self._event.set()
        return bool(peers)

    def hurry(self) -> None:
        """Hand over what is urgent without waiting for a turn, as far as the stack has room."""
        for peer in self.established():
            while self._control(peer) and self._hand_over(peer) == 0 and peer.events:
                pass

    def wake(self) -> None:
        """There may be something to send."""
        self._event.set()

    def wake_all(self) -> None:
        """Let both tasks come round once."""
        self._event.set()
        self._radio.flag.set()

    def dropped(self) -> int:
        """What arrived on present connections and could not be used."""
        return sum(peer.session.dropped for peer in self.peers.values()) + self._radio.lost

    def forget_all(self) -> None:
        """The radio was restarted: nobody is there any more."""
        self.peers.clear()

    # --- receiving

    async def receive(self, alive: "Callable[[], None]") -> None:
        """Handle what the radio notes, for ever."""
        while True:
            await self._radio.flag.wait()
            happened = self._radio.next()
            while happened is not None:
                self.happened(*happened)
                alive()
                # whoever writes as fast as this can read must not keep buttons and clock from their turn
                await asyncio.sleep_ms(0)
                happened = self._radio.next()
            alive()

    def happened(self, kind: int, connection: int, data: "bytes | int | None") -> None:
        """Handle one thing that the radio noted."""
        if kind == air.DISCONNECTED:
            if self.peers.pop(connection, None) is not None:
                trace.say("disconnected", "connection=%d" % connection)
            self.on_connections()
            return
        if kind == air.HEARD and isinstance(data, bytes):
            self.on_heard(data)
            return
        peer = self.peers.get(connection)
        if peer is None or kind == air.CONNECTED:
            peer = Peer(connection, self.open_session())
            self.peers[connection] = peer
            trace.say("connected", "connection=%d" % connection)
            self._keep_one_free()
            self.on_connections()
        if kind == air.MTU_CHANGED and isinstance(data, int):
            peer.session.payload = max(chunks.PAYLOAD_MIN, min(data - 3, chunks.PAYLOAD_MAX))
        elif kind == air.WRITTEN and isinstance(data, bytes):
            for what, body in peer.session.receive(data, now_ms()):
                self.on_message(peer, what, body)
            self._event.set()
        elif kind == air.PASSKEY and isinstance(data, int):
            self.on_passkey(connection, data)

    def _keep_one_free(self) -> None:
        there = [peer for peer in self.peers.values() if not peer.dropped_ms]
        if len(there) < air.CONNECTIONS:
            return
        newest = there[0]
        oldest_unproved = None
        for peer in there:
            if peer.session.began_ms >= newest.session.began_ms:
                newest = peer
            if not peer.session.established and (
                oldest_unproved is None or peer.session.began_ms < oldest_unproved.session.began_ms
            ):
                oldest_unproved = peer
        self.drop(oldest_unproved or newest, "full")

    def drop(self, peer: Peer, why: str) -> None:
        """Disconnect a peer."""
        if not peer.dropped_ms:
            peer.dropped_ms = now_ms() or 1
            trace.say("dropped", "connection=%d why=%s" % (peer.connection, why))
            self._radio.disconnect(peer.connection)

    def poll(self) -> bool:
        """Drop who proves nothing; False when the stack does not even disconnect any more."""
        now = now_ms()
        for peer in list(self.peers.values()):
            if peer.dropped_ms:
                if now - peer.dropped_ms > _DROP_MS:
                    return False
            elif peer.session.dead(now):
                self.drop(peer, "silent" if peer.session.established else "unproved")
        return True

    # --- sending

    async def send(self, alive: "Callable[[], None]") -> None:
        """Send what there is to send, for ever."""
        while True:
            await self._event.wait()
            self._event.clear()
            pause = self.send_one()
            while pause is not None:
                alive()
                # also where there was room: the others must come to their turn
                await asyncio.sleep_ms(pause)
                pause = self.send_one()
            alive()

    def send_one(self) -> "int | None":
        """Hand over one value; milliseconds until the next try, None when there is nothing to send."""
        for peer in list(self.peers.values()):
            if not peer.dropped_ms and self._control(peer):
                return self._hand_over(peer)
        for peer in self.established():
            if peer.audio is None:
                if not self._token():
                    if self.audio_waits(peer):
                        return _AUDIO_RETRY_MS
                    continue
                body = self.next_audio(peer)
                if body is None:
                    continue
                self._tokens -= 1
                peer.session.send(link.AUDIO, body)
                cut, _ = peer.session.poll(now_ms())
                if len(cut) > 1:
                    peer.waiting.extend(cut)
                    return self._hand_over(peer)
                peer.audio = cut[0]
            took = self._radio.notify(peer.connection, peer.audio)
            if took is False:
                self._tokens = 0
                return _AUDIO_RETRY_MS
            peer.audio = None
            return 0
        return None

    def _control(self, peer: Peer) -> bool:
        """Whether there is control to send, cut into peer.waiting."""
        session = peer.session
        if not peer.waiting:
            cut, _ = session.poll(now_ms())
            if not cut and session.established:
                while peer.events and peer.events[0].settled:
                    peer.events.pop(0)
                if peer.events and peer.events[0].priority <= kinds.PRIORITY_STATUS:
                    session.send(link.EVENT, self.event_body(peer.events.pop(0)))
                elif peer.status:
                    peer.status = False
                    session.send(link.TELEMETRY, self.status_body())
                elif peer.events:
                    session.send(link.EVENT, self.event_body(peer.events.pop(0)))
                cut, _ = session.poll(now_ms())
            peer.waiting = cut
        elif len(peer.waiting) > _SLOW_MTU_CHUNKS:
            self.drop(peer, "stuck")
            return False
        return bool(peer.waiting)

    def _hand_over(self, peer: Peer) -> int:
        took = self._radio.notify(peer.connection, peer.waiting[0])
        if took is False:
            return _CONTROL_RETRY_MS
        if took is None:
            # not connected any more: the disconnect is on its way
            peer.waiting = []
            if not peer.dropped_ms:
                self.drop(peer, "unreachable")
            return 0
        peer.waiting.pop(0)
        return 0

    def _token(self) -> bool:
        now = ticks()
        gained = (now - self._refilled & MASK) // _AUDIO_REFILL_MS
        if gained > 0:
            self._tokens = min(_AUDIO_BURST, self._tokens + gained)
            self._refilled = now
        return self._tokens > 0
