"""Connections to badges: dialled at once, judged by what they prove, never given up, alarms first.

Time is virtual: the event loop's clock jumps to the next thing that is due.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from bleak.backends.device import BLEDevice
from bleak.exc import BleakDeviceNotFoundError, BleakError

from hub.badges import BACKOFF_S, TRANSITIONS, URGENT_BACKOFF_S, Event, Machine, State
from hub.clock import Clock
from hub.roster import DIALS, GUESTS, LETTER_MS, STRANGERS, Roster
from protocol import ident, kinds, link
from protocol.beacon import Beacon
from protocol.events import BLOB_LENGTH
from protocol.session import PROOF_MS, SILENCE_MS, BadgeLink

HUB = b"the hub!"
PASSKEY = 4711


class Time(asyncio.SelectorEventLoop):
    """A loop in which nobody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1000.0

    def time(self) -> float:
        return self.at

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.at = max(self.at, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class LoopClock(Clock):
    def __init__(self, loop: Time) -> None:
        super().__init__()
        self._loop = loop

    def now_ms(self) -> int:
        return int(self._loop.time() * 1000)


class Far:
    """A badge at the other end of the fake radio."""

    def __init__(self, number: int, key: bytes | None) -> None:
        self.number = number
        self.boot = ident.boot_bytes(1, os.urandom(4))
        self.key = key
        self.answers = True
        self.mute = False
        self.window = False
        self.session: BadgeLink | None = None
        self.said: list[tuple[int, bytes]] = []
        self.dials: list[float] = []
        self.dialling = 0
        self.drop: Callable[[], None] | None = None


class FakeConnection:
    payload = 244

    def __init__(self, radio: FakeRadio, far: Far, dropped: Callable[[], None]) -> None:
        self.radio, self.far, self.dropped = radio, far, dropped
        self.notified: Callable[[bytes], None] | None = None
        self.open = False

    @property
    def linked(self) -> bool:
        return self.open

    async def connect(self, passkey: int | None = None, answers: Callable[[], None] = lambda: None) -> None:
        loop = asyncio.get_running_loop()
        self.far.dials.append(loop.time())
        self.radio.dialling += 1
        self.radio.most_dialling = max(self.radio.most_dialling, self.radio.dialling)
        try:
            await asyncio.sleep(0.3 if self.far.answers else 2.0)
        finally:
            self.radio.dialling -= 1
        if not self.far.answers:
            raise BleakDeviceNotFoundError("x", "does not answer")
        self.open = True
        answers()
        if passkey is not None:
            await asyncio.sleep(2.4)
            self.radio.passkeys.append(passkey)
            if passkey != PASSKEY:
                raise BleakError("the badge refuses")
        self.far.drop = self.lost
        key = self.far.key or bytes(16)
        self.far.session = BadgeLink(
            self.far.number, self.far.boot, lambda _hub: key, os.urandom, int(loop.time() * 1000), 244
        )

    def lost(self) -> None:
        self.open = False
        self.dropped()

    async def listen(self, notified: Callable[[bytes], None]) -> None:
        self.notified = notified

    async def write(self, value: bytes) -> None:
        if not self.open:
            raise BleakError("not connected")
        session = self.far.session
        assert session is not None
        now = int(asyncio.get_running_loop().time() * 1000)
        for kind, body in session.receive(value, now):
            self.far.said.append((kind, body))
            if kind == link.ENROL_REQUEST and self.far.window:
                session.enrol(bytes(8), bytes(BLOB_LENGTH))
        self.flush()

    def flush(self) -> None:
        session = self.far.session
        assert session is not None
        for chunk in session.poll(0)[0]:
            if self.notified and not self.far.mute:
                asyncio.get_running_loop().call_soon(self.notified, chunk)

    async def hang_up(self) -> None:
        self.open = False


class FakeRadio:
    usable = True

    def __init__(self) -> None:
        self.fars: dict[str, Far] = {}
        self.dialling = 0
        self.most_dialling = 0
        self.passkeys: list[int] = []

    def connection(self, device: BLEDevice, dropped: Callable[[], None]) -> FakeConnection:
        return FakeConnection(self, self.fars[device.address], dropped)


class World:
    """A roster with fake badges around it."""

    def __init__(self) -> None:
        self.loop = Time()
        self.radio = FakeRadio()
        self.keys: dict[int, bytes] = {}
        self.messages: list[tuple[int, int, bytes]] = []
        self.established: list[int] = []
        self.undelivered: list[int] = []
        self.passkeys: dict[int, int] = {}
        self.fars: dict[int, Far] = {}
        self.heard: dict[int, int] = {}
        self.roster = Roster(
            self.radio,  # type: ignore[arg-type]
            HUB,
            LoopClock(self.loop),
            lambda: self.keys,
            lambda badge: True,
            self._message,
            lambda badge, boot: self.established.append(badge),
            self.undelivered.append,
            self.passkeys.get,
        )

    def _message(self, badge: int, kind: int, body: bytes) -> None:
        self.messages.append((badge, kind, body))
        if kind == link.ENROL:
            self.roster.enrolling(badge)

    def badge(self, number: int, enrolled: bool = True) -> Far:
        key = os.urandom(16)
        if enrolled:
            self.keys[number] = key
        far = self.fars[number] = Far(number, key)
        return far

    def hear(self, number: int, kind: int = kinds.STATUS, new: bool = True) -> None:
        far = self.fars[number]
        self.heard[number] = self.heard.get(number, 0) + new
        address = f"{number}/{self.heard[number]}"
        self.radio.fars[address] = far
        beacon = Beacon(number, far.boot, 1, kind, 15, self.heard[number], bytes(16), bytes(8))
        self.roster.heard(beacon, new, BLEDevice(address, None, None), -60)

    async def hearing(self, kind: int = kinds.STATUS) -> None:
        while True:
            for number in self.fars:
                self.hear(number, kind, new=False)
            await asyncio.sleep(0.1)

    def state(self, number: int) -> State:
        return self.roster.entries()[number].machine.state

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            housekeeping = asyncio.create_task(self.roster.run())
            await story
            housekeeping.cancel()
            await asyncio.wait({housekeeping})

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(run())


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.SILENT}
    for _ in State:
        reached |= {to for (state, _), to in TRANSITIONS.items() if state in reached}
    assert reached == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State)


@pytest.mark.parametrize("state", State)
def test_what_is_not_in_the_table_changes_nothing(state: State) -> None:
    for event in Event:
        machine = Machine(1, 0)
        machine.state = state
        changed = machine.change(event, 5)
        assert changed == ((state, event) in TRANSITIONS)
        assert machine.state == TRANSITIONS.get((state, event), state)


def test_waits_grow_with_each_failure_and_an_alarm_shortens_them() -> None:
    machine = Machine(1, 0)
    rests = []
    for _ in range(len(BACKOFF_S) + 2):
        for event in (Event.HEARD, Event.DIALLED, Event.FAILED):
            machine.change(event, 0)
        rests.append(machine.rest_s(urgent=False))
        assert machine.rest_s(urgent=True) <= URGENT_BACKOFF_S
        machine.change(Event.RESTED, 0)
    assert rests == [*BACKOFF_S, BACKOFF_S[-1], BACKOFF_S[-1]]


def test_an_enrolled_badge_is_dialled_as_soon_as_it_is_heard() -> None:
    world = World()
    far = world.badge(7)

    async def story() -> None:
        started = world.loop.time()
        world.hear(7)
        await asyncio.sleep(1)
        assert far.dials == [started]
        assert world.state(7) is State.ESTABLISHED
        assert world.established == [7]
        assert world.roster.send(7, link.UPLINK, b"\1")

    world.play(story())


def test_a_badge_of_others_is_left_alone() -> None:
    world = World()
    far = world.badge(7, enrolled=False)

    async def story() -> None:
        world.hear(7)
        world.hear(7, kinds.SOS)
        await asyncio.sleep(1)
        assert far.dials == []

    world.play(story())


def test_a_dropped_connection_is_made_again_at_the_next_beacon() -> None:
    world = World()
    far = world.badge(7)

    async def story() -> None:
        world.hear(7)
        await asyncio.sleep(1)
        assert far.drop is not None
        far.drop()
        await asyncio.sleep(0.01)
        world.hear(7, new=False)
        await asyncio.sleep(0.5)
        assert world.state(7) is State.ESTABLISHED
        assert len(far.dials) == 2

    world.play(story())


def test_a_connection_on_which_nothing_authentic_comes_is_given_up() -> None:
    world = World()
    far = world.badge(7)

    async def story() -> None:
        ears = asyncio.create_task(world.hearing())
        await asyncio.sleep(1)
        far.mute = True
        await asyncio.sleep(SILENCE_MS / 1000 - 1)
        assert world.state(7) is State.ESTABLISHED
        await asyncio.sleep(2)
        assert len(far.dials) > 1, "connected, but mute: hung up and dialled again"
        far.mute = False
        await asyncio.sleep(PROOF_MS / 1000 + 5)
        assert world.state(7) is State.ESTABLISHED
        ears.cancel()

    world.play(story())


def test_a_badge_that_has_just_moved_is_dialled_under_its_new_address() -> None:
    world = World()
    far = world.badge(7)

    async def story() -> None:
        far.answers = False  # nobody is at the first address any more
        world.hear(7)
        await asyncio.sleep(0.2)
        far.answers = True
        world.hear(7)
        await asyncio.sleep(0.35)
        assert world.state(7) is State.ESTABLISHED
        assert len(far.dials) == 2
        assert world.roster.entries()[7].machine.failures == 0

    world.play(story())


def test_a_new_address_heard_during_a_connection_changes_nothing() -> None:
    world = World()
    far = world.badge(7)

    async def story() -> None:
        for _ in range(30):
            world.hear(7)
            await asyncio.sleep(0.31)
        assert len(far.dials) == 1

    world.play(story())


def test_a_badge_that_answers_with_a_wrong_key_is_never_established() -> None:
    world = World()
    far = world.badge(7)
    far.key = os.urandom(16)

    async def story() -> None:
        ears = asyncio.create_task(world.hearing())
        await asyncio.sleep(20)
        ears.cancel()
        assert world.established == []
        assert 3 <= len(far.dials) <= 8, "it is tried again, with pauses"

    world.play(story())


def test_one_that_does_not_answer_holds_up_no_other() -> None:
    world = World()
    for number in range(1, 7):
        world.badge(number).answers = number > 2

    async def story() -> None:
        ears = asyncio.create_task(world.hearing())
        await asyncio.sleep(4)
        ears.cancel()
        assert sorted(world.established) == [3, 4, 5, 6]
        assert world.radio.most_dialling <= DIALS

    world.play(story())


def test_an_alarm_finds_a_place_while_all_are_taken_and_does_not_sit_out_a_pause() -> None:
    world = World()
    for number in range(1, DIALS + 3):
        world.badge(number).answers = False

    async def story() -> None:
        for number in range(1, DIALS + 2):
            world.hear(number)
        await asyncio.sleep(0.01)
        late = DIALS + 2
        assert world.radio.dialling == DIALS
        world.hear(late, kinds.SOS)
        await asyncio.sleep(0.01)
        assert world.radio.dialling == DIALS + 1
        assert len(world.fars[late].dials) == 1
        for _ in range(300):
            world.hear(late, kinds.SOS, new=False)
            await asyncio.sleep(0.1)
        pauses = [b - a - 2.0 for a, b in zip(world.fars[late].dials, world.fars[late].dials[1:], strict=False)]
        assert max(pauses) <= URGENT_BACKOFF_S + 0.11

    world.play(story())


def test_a_guest_hands_over_what_the_station_sealed_and_leaves() -> None:
    world = World()
    far = world.badge(7, enrolled=False)

    async def story() -> None:
        world.hear(7, kinds.SOS)
        world.roster.deliver(7, b"sealed by the station")
        await asyncio.sleep(0.5)
        assert far.said == [(link.STATION, b"sealed by the station")]
        world.roster.deliver(7, b"and more")
        await asyncio.sleep(0.1)
        assert far.said[1:] == [(link.STATION, b"and more")]
        assert len(far.dials) == 1
        await asyncio.sleep(3)
        assert world.state(7) is State.SEEN
        assert world.established == []
        assert world.undelivered == []

    world.play(story())


def test_what_cannot_be_handed_over_in_time_is_told() -> None:
    world = World()
    far = world.badge(7, enrolled=False)
    far.answers = False

    async def story() -> None:
        ears = asyncio.create_task(world.hearing(kinds.SOS))
        await asyncio.sleep(0.1)
        world.roster.deliver(7, b"sealed")
        await asyncio.sleep(LETTER_MS / 1000 + 2)
        assert world.undelivered == [7]
        assert world.roster.entries()[7].undelivered
        assert len(far.dials) >= 4
        far.answers = True
        world.roster.deliver(7, b"again")
        await asyncio.sleep(3)
        assert far.said == [(link.STATION, b"again")]
        assert not world.roster.entries()[7].undelivered
        ears.cancel()

    world.play(story())


def test_what_the_station_says_waits_for_a_badge_that_is_just_connecting() -> None:
    world = World()
    far = world.badge(7)

    async def story() -> None:
        world.hear(7)
        world.roster.deliver(7, b"early")
        await asyncio.sleep(1)
        world.roster.deliver(7, b"late")
        await asyncio.sleep(0.1)
        assert [body for kind, body in far.said if kind == link.STATION] == [b"early", b"late"]

    world.play(story())


def test_guests_do_not_take_all_connections() -> None:
    world = World()
    for number in range(1, 8):
        world.badge(number, enrolled=False).answers = False

    async def story() -> None:
        for number in range(1, 8):
            world.hear(number)
            world.roster.deliver(number, b"x")
        await asyncio.sleep(0.01)
        assert world.radio.dialling == GUESTS

    world.play(story())


@pytest.mark.parametrize("passkey", [PASSKEY, PASSKEY + 1])
def test_with_its_passkey_a_badge_is_paired_before_it_is_asked(passkey: int) -> None:
    world = World()
    far = world.badge(7, enrolled=False)
    far.window = True
    world.passkeys[7] = passkey
    states: list[State] = []

    async def story() -> None:
        hearing = asyncio.create_task(world.hearing(kinds.ENROL))
        world.hear(7, kinds.ENROL)
        for _ in range(80):
            if not states or states[-1] is not world.state(7):
                states.append(world.state(7))
            await asyncio.sleep(0.05)
        hearing.cancel()
        assert states[:2] == [State.CONNECTING, State.PAIRING]
        assert set(world.radio.passkeys) == {passkey}
        if passkey == PASSKEY:
            assert states[2] is State.HELLO
            assert [kind for _, kind, _ in world.messages] == [link.ENROL]
        else:
            assert states[2] is State.BACKOFF
            assert world.messages == []

    world.play(story())


def test_a_badge_in_its_pairing_window_is_enrolled_and_then_connected() -> None:
    world = World()
    far = world.badge(7, enrolled=False)
    far.window = True

    async def story() -> None:
        world.hear(7, kinds.ENROL)
        await asyncio.sleep(0.5)
        assert world.messages == [(7, link.ENROL, bytes(8 + BLOB_LENGTH))]
        assert far.key is not None
        world.keys[7] = far.key
        world.roster.keys_changed()
        await asyncio.sleep(0.1)
        assert world.state(7) is State.ESTABLISHED
        assert len(far.dials) == 1, "on the same connection"

    world.play(story())


def test_a_badge_is_asked_to_enrol_at_intervals_while_the_station_says_nothing() -> None:
    world = World()
    far = world.badge(7, enrolled=False)
    far.window = True

    async def story() -> None:
        ears = asyncio.create_task(world.hearing(kinds.ENROL))
        world.hear(7, kinds.ENROL)
        await asyncio.sleep(20)
        ears.cancel()
        assert 3 <= len(world.messages) <= 6
        assert world.established == []

    world.play(story())


def test_a_revoked_badge_is_hung_up() -> None:
    world = World()
    world.badge(7)

    async def story() -> None:
        world.hear(7)
        await asyncio.sleep(1)
        assert world.roster.established(7)
        world.keys.clear()
        world.roster.keys_changed()
        await asyncio.sleep(0.1)
        assert not world.roster.established(7)
        assert not world.roster.send(7, link.UPLINK, b"\1")

    world.play(story())


def test_badges_that_pass_by_are_forgotten_and_enrolled_ones_are_not() -> None:
    world = World()
    world.badge(1)

    async def story() -> None:
        world.fars[1].answers = False
        world.hear(1)
        for number in range(2, 500):
            world.badge(number, enrolled=False)
            world.hear(number)
        assert len(world.roster.entries()) <= STRANGERS + 1
        assert 1 in world.roster.entries()

    world.play(story())


def test_silence_is_noticed_and_an_old_address_is_not_dialled() -> None:
    world = World()
    far = world.badge(7, enrolled=False)

    async def story() -> None:
        world.hear(7)
        await asyncio.sleep(6)
        world.roster.deliver(7, b"late")
        await asyncio.sleep(0.1)
        assert far.dials == []
        await asyncio.sleep(10)
        assert world.state(7) is State.SILENT

    world.play(story())
