"""A whole badge in one interpreter on a clock that jumps: its own files, a radio of paper, and a hub beside it."""

import os

import bluetooth
import machine
from firmware.badge import app, buffers, clock
from firmware.badge import store as stores
from firmware.badge.audio import Recorder
from firmware.badge.battery import Battery
from firmware.badge.bonds import Bonds
from firmware.badge.gestures import Recogniser
from firmware.badge.lanyard import Lanyard
from firmware.badge.links import Links
from firmware.badge.radio import CONNECTED, DISCONNECTED, MTU_CHANGED, WRITTEN, Radio
from firmware.badge.retained import Retained
from firmware.badge.settings import Settings
from firmware.badge.store import Identity
from firmware.boards import emulator as board
from protocol import beacon, downlink, events, kinds, link
from protocol.crypto import Forged
from protocol.events import Malformed
from protocol.ident import NONE
from protocol.keys import BadgeKeys
from protocol.session import HubLink

RX = 21
ROOT = bytes(range(32))
GROUP = bytes(range(16))
ME = 12


class Time:
    now = 1000


clock.ticks_ms = lambda: Time.now & clock.MASK
_HALF = (clock.MASK + 1) // 2
clock.ticks_diff = lambda a, b: (a - b + _HALF & clock.MASK) - _HALF
clock._last = clock._total = Time.now  # so that the badge's milliseconds are the world's


class Microphone:
    """Gives a block whenever it is asked to; counts who opened it."""

    opened = 0
    broken = False
    raw = buffers.raw

    def __init__(self):
        self.on_block = None

    def open(self, on_block):
        if Microphone.broken:
            return False
        Microphone.opened += 1
        self.on_block = on_block
        return True

    def close(self):
        self.on_block = None


class Store:
    """Records in memory; `broken` forgets everything."""

    folder = None

    def __init__(self):
        self.records = {}
        self.broken = False

    def write(self, what, payload):
        if not self.broken:
            self.records[what] = payload
        return not self.broken

    def read(self, what):
        return None if self.broken else self.records.get(what)

    def remove(self, what):
        self.records.pop(what, None)

    def identity(self):
        return None

    def keep_settings(self, settings):
        self.write(stores.SETTINGS, bytes(settings.version))


class Haptic:
    def __init__(self):
        self.felt = []

    idle = True

    def play(self, name):
        self.felt.append((Time.now, name))


class Fails:
    """Stands in for a method; the first calls of it raise, or those `after` so many."""

    def __init__(self, owner, name, error=MemoryError, times=1, after=0):
        self._real = getattr(owner, name)
        self._error = error
        self._after = after
        self.left = times
        setattr(owner, name, self)

    def __call__(self, *args):
        if self._after:
            self._after -= 1
        elif self.left:
            self.left -= 1
            raise self._error
        return self._real(*args)


class Hub:
    """A hub and the station behind it, on one connection. What it must not do can be switched off."""

    def __init__(self, world, connection, hub_id=b"hubhubhu", key=True, answer=True, hold=True, chunk=244):
        self.world = world
        self.connection = connection
        self.answer = answer
        self.hold = hold
        self.keys = BadgeKeys(ROOT)
        self.session = HubLink(hub_id, ME, self.keys.link(hub_id) if key else None, os.urandom, Time.now, chunk)
        self.session.start(Time.now, True)
        self.events = {}
        self.order = []
        self.raw = []
        self.statuses = []
        self.sound = {}
        self.sound_order = []
        self.skipped = {}
        self.gone = False

    def step(self):
        cut, _ = self.session.poll(Time.now)
        for chunk in cut:
            self.write(chunk)

    def write(self, chunk):
        ble = bluetooth.BLE()
        ble.value = bytes(chunk)
        ble.handler(WRITTEN, (self.connection, RX))

    def take(self, value):
        for kind, body in self.session.receive(value, Time.now):
            self.message(kind, body)

    def message(self, kind, body):
        if kind == link.ESTABLISHED:
            self.boot = body
        elif kind == link.EVENT:
            shown, ident, age, battery, flags, blob = link.unpack_event(body)
            self.raw.append((shown, len(body), flags))
            self.event(blob, shown)
        elif kind == link.TELEMETRY:
            event = self.world.station_hears(link.unpack_telemetry(body)[1])
            self.statuses.append(event)
            if self.answer:
                incident = event.incident if event.incident != NONE else self.world.incident
                self.say(downlink.PROOF, downlink.pack_state(incident, self.world.level, self.world.flags))
        elif kind == link.AUDIO:
            boot, capture, index, sealed = link.unpack_audio(body)
            if sealed:
                self.sound.setdefault((boot, capture), {})[index] = sealed
                self.sound_order.append(index)
            else:
                self.skipped[(boot, capture)] = index

    def event(self, blob, shown):
        event = self.world.station_hears(blob)
        self.events.setdefault(event.ident, []).append((Time.now, event, shown))
        self.order.append(event.kind)
        if self.hold:
            self.session.send(link.HELD, link.pack_held([event.ident]))
        if self.answer:
            self.world.station_takes(event)
            level = self.world.level if event.incident == self.world.incident else 0
            self.say(downlink.RECEIPT, downlink.pack_receipt(event.ident, event.incident, level, self.world.flags))

    def say(self, kind, body, echo=None):
        self.session.station(self.world.sealed(kind, body, echo))

    def acknowledge(self, boot, capture):
        packets = self.sound.get((boot, capture), {})
        following = min(packets) if packets else 0
        while following in packets or following < self.skipped.get((boot, capture), 0):
            following += 1
        beyond = 0
        for i in range(64):
            if following + 1 + i in packets:
                beyond |= 1 << i
        self.session.send(link.AUDIO_ACK, link.pack_audio_ack(boot, capture, following, beyond))

    def kinds(self):
        """The kinds of event that came, in order, without repetitions of one identity."""
        seen, out = [], []
        for found in self.events.values():
            at, event, _ = found[0]
            seen.append((at, event.ident[6:], event.kind))
        for _, _, kind in sorted(seen):
            out.append(kind)
        return out


class World:
    """One badge. `boot()` starts it, again after `reset()` (retained memory stays) or `power_cut()`."""

    def __init__(self, settings=None, store=None):
        """`store`: a real one, on a file system; None: records in memory."""
        self.settings = Settings(settings or {})
        self.store = store or Store()
        self.hubs = {}
        self.number = 0
        self.echo = 0
        self.station_boot = b""
        self.incident = NONE
        self.level = kinds.RAISED
        self.flags = downlink.YOUNG
        self.keys = BadgeKeys(ROOT)
        self.counter = 0
        self.beacons = []
        for i in range(len(machine.retained)):
            machine.retained[i] = i & 0xFF
        machine.pins.clear()
        machine.pins[board.LANYARD_N] = 0
        Microphone.broken = False
        Time.now += 100000
        self.boot()

    def boot(self):
        ble = bluetooth.BLE()
        ble.reset()
        ble.room = 1000000
        self.ble = ble
        self.counter = self._next_boot()
        bonds = self.store.read(stores.BONDS)
        radio = Radio(Bonds(bonds))
        radio.start()
        self.links = Links(radio)
        self.haptic = Haptic()
        self.microphone = Microphone()
        self.recorder = Recorder(self.microphone, self.store.folder)
        self.retained = Retained()
        boot = self.counter.to_bytes(2, "big") + os.urandom(4)
        who = self.store.identity() or Identity(ME, ROOT, GROUP)
        self.badge = app.Badge(
            who, radio, self.links, Recogniser(), self.haptic, self.store, self.retained,
            self.recorder, self.settings, Battery(board, lambda level: None), Lanyard(board.LANYARD_N), boot, board,
        )  # fmt: skip
        self.badge.reset = lambda cause: None
        self.asleep = False
        self.badge.sleep = self._sleep
        self.badge.begin(1)
        self.hubs = {}
        self.tick_at = Time.now

    def _next_boot(self):
        return self.counter + 1 if isinstance(self.store, Store) else self.store.next_boot()

    def _sleep(self):
        self.asleep = True

    def power_cut(self):
        for i in range(len(machine.retained)):
            machine.retained[i] = (i * 7 + 3) & 0xFF
        self.boot()

    # --- the air

    def connect(self, connection=1, **options):
        hub = Hub(self, connection, **options)
        self.hubs[connection] = hub
        self.ble.handler(CONNECTED, (connection, 1, b"addr"))
        self.ble.handler(MTU_CHANGED, (connection, options.get("chunk", 244) + 3))
        return hub

    def disconnect(self, connection=1):
        self.hubs.pop(connection, None)
        self.ble.handler(DISCONNECTED, (connection, 1, b"addr"))

    def run(self, ms, each=None):
        """Let time pass, in steps of 10 ms."""
        end = Time.now + ms
        while Time.now < end:
            Time.now += 10
            for hub in list(self.hubs.values()):
                hub.step()
            self._drain()
            if Time.now >= self.tick_at:
                self.tick_at = Time.now + 50
                if not self.asleep:
                    self.badge.tick(Time.now)
                self.recorder.tick(Time.now)
            if each:
                each()
            self._send()

    def _drain(self):
        radio = self.badge.radio
        found = radio.next()
        while found is not None:
            self.links.happened(*found)
            found = radio.next()
        for connection in self.ble.gone:
            self.hubs.pop(connection, None)
            self.ble.handler(DISCONNECTED, (connection, 1, b"addr"))
        self.ble.gone.clear()

    def _send(self):
        for _ in range(60):
            if self.links.send_one() is None:
                break
        sent, self.ble.sent = self.ble.sent, []
        for connection, value in sent:
            hub = self.hubs.get(connection)
            if hub is not None:
                hub.take(value)

    def beacon(self):
        """What the badge advertises now: the beacon, and its true kind as the station verifies it."""
        data = beacon.parse_advertisement(self.ble.advertised[-1][1])
        found = beacon.route([beacon.Group(GROUP)], data)
        return found, beacon.verify(self.keys.beacon, found)

    def speak(self, seconds):
        """Blocks of sound, 40 a second."""
        for _ in range(int(seconds * 40)):
            if self.microphone.on_block:
                self.microphone.on_block(0)
            self.run(25)

    # --- the station

    def station_hears(self, blob):
        event, boot, number = events.open_event(self.keys.events, ME, blob)
        if boot != self.station_boot:
            self.station_boot, self.echo = boot, 0
        self.echo = max(self.echo, number)
        return event

    def station_takes(self, event):
        if event.kind in kinds.ALARMS and self.incident == NONE:
            self.incident, self.level = event.incident, kinds.RECEIVED

    def sealed(self, kind, body, echo=None, boot=None):
        self.number += 1
        message = downlink.Down(kind, self.number, boot or self.station_boot, self.echo if echo is None else echo, body)
        return downlink.seal_down(self.keys.down, ME, os.urandom(13), message)

    def says(self, level, flags=downlink.YOUNG):
        """The custody of the open incident changes, and every hub brings the news."""
        self.level, self.flags = level, flags
        for hub in self.hubs.values():
            hub.say(downlink.STATE, downlink.pack_state(self.incident, level, flags))

    def felt(self):
        """The patterns felt so far."""
        return [name for _, name in self.haptic.felt]


__all__ = ["Forged", "Malformed", "World"]


def ready(**settings):
    world = World(settings)
    hub = world.connect()
    world.run(1500)
    world.haptic.felt.clear()
    return world, hub
