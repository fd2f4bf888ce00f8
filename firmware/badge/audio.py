"""Sound from the microphone to a hub: captured, coded and sealed at once, kept until a hub has stored it.

A capture begins only by the wearer's act or by a missed check-in for which it was agreed in advance; nothing that a
hub or a station sends can begin one, and no handler of such messages in this firmware has a way to `begin`.

Each block of 25 ms is coded and sealed in the microphone's callback, into a ring in memory, without allocating. From
there: live packets go out first; what a link could not take follows in order, behind them. When the ring fills because
no link drains it, its oldest packets are moved to flash in batches. A packet is kept until the hub says that it has
stored it; what a hub reports as missing is sent again. On a new session the oldest packet goes first, so that the hub
knows where its part begins.

Packets of a capture are numbered without holes. Where sound is lost before it could be kept (the microphone ran over,
or there was neither link nor flash), the capture ends, with its losses counted, and the next one begins.
"""

import asyncio
from array import array

from micropython import const

from protocol import link

from . import buffers, codec, sealer, trace
from .buffers import PACKETS, SEALED_LENGTH
from .clock import now_ms
from .sealer import Sealer
from .spool import BATCH, Spool, oldest, path_of

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

    from .links import Peer
    from .microphone import Microphone

_SPILL_AT = const(30)  # packets that wait before a batch goes to flash: most hiccups of the radio cost no wear
_SPILL_RETRY_MS = const(2000)  # a flash that is full or broken is not asked at every turn
_LIVE_BEHIND = const(20)  # a live packet older than half a second is no longer live: it follows with the rest
_REPAIR_MS = const(250)  # between two repetitions of the same holes
_QUIET_MS = const(1500)  # without progress for so long, the oldest packet is sent again
_LEAD_MS = const(300)  # and until a hub shows that it has the first, three times within the second that it waits for it
_TODO = const(32)  # ranges that wait to be sent
_TICK_MS = const(20)
_MICROPHONE_RETRY_MS = const(5000)
_STALLED_MS = const(1000)
_WAITING = const(3)  # captures in memory beside the running one; more wait on flash until these are taken
_FETCH_MS = const(5000)  # between two looks for them
_GAP_MS = const(1000)  # captures do not follow one another faster, however much is lost

benchmark = sealer.benchmark


class Track:
    """What is known of one capture: which packets exist, which are stored by a hub, which must be sent."""

    def __init__(self, boot: bytes, number: int, spool: Spool) -> None:
        self.boot = boot
        self.number = number
        self.spool = spool
        self.made = 0  # packets so far: the next one's number
        self.floor = 0  # all below are stored by a hub
        self.live = 0  # the next one to be sent live; `made` once the capture is over
        self.skip = False  # the hub waits for packets that are nowhere any more: tell it
        self.lead = False  # the oldest is to be sent before anything else
        self._progress = False
        self._todo: "list[list[int]]" = []  # [from, to) still to be sent in this session, ascending
        self._repair: "list[int]" = []
        self._repaired_ms = 0
        self._moved_ms = 0

    def restart(self, now: int) -> None:
        """A new session: nothing of what was sent before counts unless it was acknowledged."""
        self.live = self.made
        self.lead = self.made > self.floor
        self._progress = False  # whether anything was released in this session
        self._todo = [[self.floor, self.made]] if self.lead else []
        self._repair = []
        self._moved_ms = now
        self._repaired_ms = now

    def later(self, first: int, end: int) -> None:
        """Send these packets when there is time."""
        todo = self._todo
        if first >= end:
            return
        if todo and (todo[-1][1] >= first or len(todo) >= _TODO):
            todo[-1][1] = max(end, todo[-1][1])
        else:
            todo.append([first, end])

    def next_late(self) -> "int | None":
        """The next packet to repeat, or of the backlog."""
        if self._repair:
            return self._repair.pop(0)
        lowest = self._lowest_unsent()
        if lowest >= self.live:
            return None
        self._todo[0][0] = lowest + 1
        return lowest

    def waits(self) -> bool:
        """Whether there is something to send."""
        return (
            self.skip or self.lead or self.live < self.made or bool(self._repair) or self._lowest_unsent() < self.live
        )

    def _lowest_unsent(self) -> int:
        todo = self._todo
        while todo:
            if todo[0][0] < self.floor:
                todo[0][0] = self.floor
            if todo[0][0] < todo[0][1]:
                return todo[0][0]
            todo.pop(0)
        return self.live

    def acknowledged(self, following: int, beyond: int, now: int) -> bool:
        """A hub has stored all below `following`, and those beyond it that the bits name. Whether any were released.

        Nothing is released that was not sent in this session: a hub may only know a later part of the capture.
        """
        sent = self._lowest_unsent()
        if beyond and now - self._repaired_ms >= _REPAIR_MS:
            self._repaired_ms = now
            missing = following
            while beyond:
                if self.floor <= missing < sent and missing not in self._repair:
                    self._repair.append(missing)
                while beyond & 1:
                    missing += 1
                    beyond >>= 1
                missing += 1
                beyond >>= 1
        following = min(following, sent, self.made)
        if following <= self.floor:
            return False
        self.floor = following
        self._progress = True
        self._moved_ms = now
        return True

    def quiet(self, now: int) -> None:
        """Nothing was released for long although packets are out: send the oldest again."""
        wait = _QUIET_MS if self._progress else _LEAD_MS
        if (
            self.floor < self.live
            and now - self._moved_ms >= wait
            and (not self._progress or self._lowest_unsent() == self.live)
        ):
            self._moved_ms = now
            if not self._repair:
                self._repair.append(self.floor)


class Recorder:
    """The capture that runs, if any, and those that still wait to be taken."""

    def __init__(self, microphone: "Microphone", folder: "str | None") -> None:
        self.on_begin: "Callable[[Track, int, bytes], None]"
        self.on_end: "Callable[[Track, int, bytes, int], None]"
        self.on_packets: "Callable[[], None]"
        self.reason = 0
        self.incident = b""
        self.dropped = 0  # of the present capture: lost before anybody could store them
        self.until_ms = 0  # when the capture ends by itself; 0: not
        self.asked_ms = 0  # when somebody wanted it last
        self._microphone = microphone
        self._folder = folder
        self._memory = buffers.sound
        self._numbers = array("i", [-1] * PACKETS)  # which packet a slot holds
        self._low = 0  # packets of the ring below this were taken or moved to flash
        self._track: "Track | None" = None
        self._sealer: "Sealer | None" = None
        self._state = codec.new_state()
        self._gain = 0
        self._capture = 0
        self._key = b""
        self._badge = 0
        self._boot = b""
        self._tracks: "list[Track]" = []  # oldest first, the running one last
        self._target: "Peer | None" = None
        self._event = asyncio.Event()
        self._told = 0
        self._gap = False
        self._halted = False  # between a capture that had a gap and the next one
        self._fetched_ms = 0
        self._parked = True  # whether captures may wait on flash that are not in memory
        self._refused_ms = -_SPILL_RETRY_MS  # when flash last would not take a batch
        self._began_ms = 0
        self._opened_ms = 0
        self._moved_ms = 0

    def prepare(self, key: bytes, badge: int, boot: bytes, gain_bits: int) -> None:
        """Who seals, and what an earlier run left on flash."""
        self._key = key
        self._badge = badge
        self._boot = boot
        self._gain = gain_bits
        self._fetch()

    def _fetch(self) -> None:
        """Take captures that wait on flash into memory, the oldest first, as far as there is room."""
        while self._parked and len(self._tracks) - self.running < _WAITING:
            found = oldest(self._folder, tuple([(track.boot, track.number) for track in self._tracks]))
            if found is None:
                self._parked = False
                return
            boot, number = found
            spool = Spool(path_of(self._folder, boot, number))
            spool.find()
            if not spool.runs:
                spool.remove()
                if oldest(self._folder, tuple([(t.boot, t.number) for t in self._tracks])) == found:
                    self._parked = False  # it cannot even be removed: not asked again before the next start
                continue
            track = Track(boot, number, spool)
            track.floor = spool.runs[0][0]
            track.made = track.live = spool.runs[-1][0] + spool.runs[-1][1]
            track.restart(now_ms())
            # before the running one, which is the last
            self._tracks.insert(len(self._tracks) - self.running, track)
            trace.say("spooled", "capture=%d packets=%d" % (number, track.made - track.floor))

    def shed(self, keep: int = 0) -> None:
        """Leave all waiting captures but the oldest `keep` to the flash, where they are: memory is wanted."""
        while len(self._tracks) - self.running > keep:
            track = self._tracks.pop(len(self._tracks) - self.running - 1)
            self._parked = True
            trace.say("parked", "capture=%d packets=%d" % (track.number, track.made - track.floor))

    @property
    def running(self) -> bool:
        """Whether a capture is on."""
        return self._track is not None

    def waiting(self) -> int:
        """Packets in memory's books that no hub has acknowledged; captures that were left to the flash come on top."""
        return sum(track.made - track.floor for track in self._tracks)

    # --- capture

    def begin(self, reason: int, incident: bytes, until_ms: int = 0) -> None:
        """Start to listen, by the wearer's act or as agreed. One that runs for something else ends first."""
        self.asked_ms = now_ms()
        self._halted = False
        if self._track is not None:
            if self.incident == incident:
                self.until_ms = until_ms
                return
            self.end()
        self.until_ms = until_ms
        self._start(reason, incident)
        self._open_microphone()
        self._event.set()

    def _start(self, reason: int, incident: bytes) -> None:
        self._capture += 1
        self.reason = reason
        self.incident = incident
        self.dropped = 0
        self._gap = False
        self._low = 0
        for i in range(PACKETS):
            self._numbers[i] = -1
        self._state = codec.new_state()
        track = Track(self._boot, self._capture, Spool(path_of(self._folder, self._boot, self._capture)))
        self._tracks.append(track)
        self._told = 0
        track.restart(now_ms())
        self._sealer = Sealer(self._key, self._badge, self._boot, self._capture)
        self._track = track  # last: the callback may come at any moment
        trace.say("capture", "n=%d state=start" % self._capture)
        self.on_begin(track, reason, incident)

    def end(self) -> None:
        """Stop listening."""
        self._microphone.close()
        self._halted = False
        self._stop()

    def _stop(self) -> None:
        track = self._track
        if track is None:
            return
        self._track = None
        self._sealer = None
        # the ring belongs to the next capture: what nobody took goes to flash
        if not self._spill(track, track.made - self._low):
            self.dropped += track.made - self._low
            track.made = self._low
        track.live = min(track.live, track.made)
        track.later(track.live, track.made)
        track.live = track.made
        trace.say("capture", "n=%d state=stop packets=%d dropped=%d" % (track.number, track.made, self.dropped))
        self.on_end(track, self.reason, self.incident, self.dropped)
        self._forget_taken()
        self.shed(_WAITING)
        self.on_packets()

    def _open_microphone(self) -> None:
        self._opened_ms = self._moved_ms = now_ms()
        self._microphone.open(self._on_block)

    def _on_block(self, missed: int) -> None:
        """In the microphone's callback: allocates nothing."""
        track = self._track
        seal = self._sealer
        if track is None or seal is None:
            return
        codec.encode(self._state, self._microphone.raw, seal.text, self._gain)
        if missed:
            self.dropped += missed
            self._gap = True
        number = track.made
        if number - self._low >= PACKETS:
            self.dropped += 1
            self._gap = True
            return
        at = number % PACKETS
        seal.seal(number, self._memory, at * SEALED_LENGTH)
        self._numbers[at] = number
        track.made = number + 1

    async def run(self, alive: "Callable[[], None]") -> None:
        """Move packets on, for ever."""
        while True:
            if self._track is None:
                await self._event.wait()
            else:
                await asyncio.sleep_ms(_TICK_MS)
            self._event.clear()
            self.tick(now_ms())
            alive()

    def wake(self) -> None:
        """Let run() come round once."""
        self._event.set()

    def tick(self, now: int) -> None:
        """What is due."""
        track = self._track
        if track is not None:
            if self.until_ms and now >= self.until_ms:
                self.end()
                return
            if track.made != self._told:
                self._told = track.made
                self._moved_ms = now
                self.on_packets()
            elif now - self._moved_ms >= _STALLED_MS and now - self._opened_ms >= _MICROPHONE_RETRY_MS:
                self._microphone.close()
                self._open_microphone()
            if track.floor > self._low:
                self._low = track.floor
            if track.made - self._low >= _SPILL_AT and now - self._refused_ms >= _SPILL_RETRY_MS:
                while track.made - self._low >= _SPILL_AT and self._spill(track, BATCH):
                    self._refused_ms = now - _SPILL_RETRY_MS
                if track.made - self._low >= _SPILL_AT:
                    self._refused_ms = now
            if self._gap and track.made - self._low < _SPILL_AT and now - self._began_ms >= _GAP_MS:
                self._halted = True
                self._stop()
        if self._halted and now - self._began_ms >= _GAP_MS:
            self._began_ms = now
            self._start(self.reason, self.incident)  # tried again in a second where memory is short
            self._halted = False
        if self._parked and self._target is not None and now - self._fetched_ms >= _FETCH_MS:
            self._fetched_ms = now
            self._fetch()
        for waiting in self._tracks:
            waiting.quiet(now)
            if waiting.waits():
                self.on_packets()

    def _spill(self, track: Track, count: int) -> bool:
        """Move the oldest packets of the ring to flash; False when it would not take them."""
        end = min(self._low + count, track.made)
        if not track.spool.keep(self._memory, max(self._low, track.floor), end):
            return False
        self._low = max(end, self._low)
        return True

    # --- sending

    def session(self, peer: "Peer | None") -> None:
        """From now on the sound goes to this peer (None: to nobody)."""
        if peer is self._target:
            return
        self._target = peer
        if peer is not None:
            now = now_ms()
            for track in self._tracks:
                track.restart(now)

    def _packet(self, track: Track, number: int) -> "bytes | None":
        at = number % PACKETS
        if track is self._track and self._numbers[at] == number:
            return bytes(memoryview(self._memory)[at * SEALED_LENGTH : (at + 1) * SEALED_LENGTH])
        return track.spool.read(number)

    def waits(self, peer: "Peer") -> bool:
        """Whether there is something for this peer to take."""
        return peer is self._target and any(track.waits() for track in self._tracks)

    def next(self, peer: "Peer") -> "bytes | None":
        """The next message for this peer: live before repeated before backlog."""
        if peer is not self._target:
            return None
        track = self._track
        if track is not None:
            if track.lead:
                track.lead = False
                body = self._message(track, track.floor)
                if body is not None:
                    return body
            if track.live < track.made:
                if track.made - track.live > _LIVE_BEHIND:
                    track.later(track.live, track.made - 1)
                    track.live = track.made - 1
                track.live += 1
                return self._message(track, track.live - 1)
        for track in self._tracks:
            track.lead = False
            if track.skip:
                track.skip = False
                return link.pack_audio(track.boot, track.number, track.floor, b"")
            number = track.next_late()
            while number is not None:
                body = self._message(track, number)
                if body is not None:
                    return body
                number = track.next_late()
        return None

    def _message(self, track: Track, number: int) -> "bytes | None":
        packet = self._packet(track, number)
        return None if packet is None else link.pack_audio(track.boot, track.number, number, packet)

    def acknowledged(self, boot: bytes, capture: int, following: int, beyond: int) -> None:
        """A hub says what it has stored."""
        for track in self._tracks:
            if track.boot == boot and track.number == capture:
                if track.acknowledged(following, beyond, now_ms()):
                    track.spool.release(track.floor)
                self._pass_over(track, following)
                self._forget_taken()
                return

    def _pass_over(self, track: Track, following: int) -> None:
        """Packets that an earlier hub took are gone, though the file of before a reset still knows older ones. A hub
        that came later must not wait for them."""
        if track is not self._track and track.floor < track.made:
            there = track.spool.following(track.floor)
            track.floor = track.made if there is None else there
        track.skip = following < track.floor

    def _forget_taken(self) -> None:
        for track in list(self._tracks):
            if track is not self._track and track.floor >= track.made:
                track.spool.remove()
                self._tracks.remove(track)
                trace.say("taken", "capture=%d packets=%d" % (track.number, track.made))
        self._fetch()
