"""Sound on its way to those who listen: decoded once, right after its commit, and handed to each listener's queue."""

import asyncio
import threading
from array import array
from collections import deque
from dataclasses import dataclass

from protocol import adpcm
from station.work import Committed

BACKLOG = 400  # messages (10 s) that a slow listener may be behind; then the oldest are dropped


@dataclass(frozen=True)
class Pcm:
    """One decoded packet: 16-bit little-endian mono at 16 kHz."""

    capture_id: int
    number: int
    samples: bytes


def decode(packet: bytes) -> bytes:
    """The PCM of an ADPCM packet; silence of the usual length for one that is too short to be one."""
    try:
        samples = array("h", adpcm.decode_packet(packet))
    except ValueError:
        return bytes(2 * adpcm.SAMPLES)
    if array("h", [1]).tobytes() != b"\x01\x00":
        samples.byteswap()
    return samples.tobytes()


class Listener:
    """One client that listens to an alarm. Filled from any thread, read in the event loop."""

    def __init__(self, alarm_id: int, loop: asyncio.AbstractEventLoop) -> None:
        self.alarm_id = alarm_id
        self._loop = loop
        self._waiting: deque[Pcm] = deque(maxlen=BACKLOG)
        self._wake = asyncio.Event()
        self.closed = False

    def feed(self, pcm: list[Pcm]) -> None:
        """New sound; also to say that the alarm was closed, with nothing new."""
        self._waiting.extend(pcm)
        self._loop.call_soon_threadsafe(self._wake.set)

    async def next(self) -> list[Pcm]:
        """What has come since the last call; waits for something. Empty once the alarm is closed."""
        while not self._waiting and not self.closed:
            self._wake.clear()
            await self._wake.wait()
        found = []
        while self._waiting:
            found.append(self._waiting.popleft())
        return found


class Live:
    """Who listens to what. Add `committed` to the core's listeners."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    def open(self, alarm_id: int) -> Listener:
        """A new listener, from within the event loop."""
        listener = Listener(alarm_id, asyncio.get_running_loop())
        with self._lock:
            self._listeners.append(listener)
        return listener

    def close(self, listener: Listener) -> None:
        """The client is gone."""
        with self._lock:
            self._listeners.remove(listener)

    def wanted(self) -> set[int]:
        """Alarms that somebody listens to."""
        with self._lock:
            return {listener.alarm_id for listener in self._listeners}

    def committed(self, out: Committed) -> None:
        """Hand new sound to its listeners."""
        if not out.sounds and not out.closed:
            return
        with self._lock:
            listeners = list(self._listeners)
        for sound in out.sounds:
            ears = [listener for listener in listeners if listener.alarm_id == sound.alarm_id]
            if ears:
                pcm = [Pcm(sound.capture_id, number, decode(packet)) for number, packet in sound.packets]
                for ear in ears:
                    ear.feed(pcm)
        for listener in listeners:
            if listener.alarm_id in out.closed:
                listener.closed = True
                listener.feed([])
