"""The hub as a process: between a badge on the air and a station behind a real broker, while things break."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from neighbours import GUARD_S, Badge, Gate, Station, air, broker, on_disk, until

from firmware.emulator.air.faults import Fault
from firmware.emulator.air.link import Air
from hub import control
from hub.queue import RESEND_MS
from protocol import downlink, kinds, relay

START_S = 90.0  # a start imports much, on a machine that does other things (drill.processes.START_S)
SOON_S = 9.5  # systemd kills after ten
PROMPT_S = 6.0  # what must not wait for anything but a machine that stalls


def a_broker() -> str:
    """Whichever is quicker to start."""
    return "mosquitto" if shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") else "amqtt"


class HubProcess:
    """A hub in its folder; may be killed and started again."""

    def __init__(self, folder: Path, name: str, config: str) -> None:
        self.folder = folder
        self.name = name
        self.path = folder / f"{name}.toml"
        self.path.write_text(config)
        self.log: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self.ready: dict[str, Any] = {}
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> HubProcess:
        """Until it is ready."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hub.cli",
            "run",
            "--config",
            str(self.path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TOCSIN_PARENT_DEATH": "1"},
        )
        self._reader = asyncio.create_task(self._read())
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            self.ready = json.loads(await self.process.stdout.readline())
        return self

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(line.decode().rstrip())

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; gives the exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(GUARD_S):
            status = await self.process.wait()
        assert self._reader is not None
        await self._reader
        return status

    def full(self, yes: bool) -> None:
        """Fill its disk, or empty it."""
        resource.prlimit(
            self.pid, resource.RLIMIT_FSIZE, (0 if yes else resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )

    def faults(self) -> list[str]:
        """Lines that nobody should ever see."""
        return [line for line in self.log if " ERROR " in line or "Traceback" in line or " CRITICAL " in line]

    async def status(self) -> dict[str, Any]:
        """What `tocsin-hub status` says."""
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub.cli", "status", "--config", str(self.path), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asked.communicate()
        answer: dict[str, Any] = json.loads(out)
        return answer

    async def until_status(self, true: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for something that `tocsin-hub status` says."""
        end = time.monotonic() + GUARD_S
        while not true(status := await self.status()):
            assert time.monotonic() < end, f"{what}: {status}"
        return status


class Scene:
    """Badges, a station, and hubs between them."""

    def __init__(self, folder: Path, the_air: Air, air_port: int, broker_port: int, gate: Gate) -> None:
        self.folder = folder
        self.air = the_air
        self.air_port = air_port
        self.broker_port = broker_port
        self.gate = gate
        self.badges: list[Badge] = []
        self.hubs: list[HubProcess] = []
        self.station: Station

    def fault(self, badge: Badge, hub: str = "bag", **what: Any) -> None:
        """Something is wrong with the air between them; without arguments it is mended."""
        if what:
            self.air.faults.set(badge.number, Fault.parse({"a": badge.name, "b": f"hub:{hub}", **what}))
        else:
            self.air.faults.clear(badge.number)
        self.air.changed()

    async def hub(self, name: str = "bag", enrol: str = "true", extra: str = "") -> HubProcess:
        """A hub that the station knows."""
        made = HubProcess(
            self.folder,
            name,
            f'[hub]\nname = "{name}"\ndir = "{name}"\nenrol = {enrol}\n[radio]\nair = "127.0.0.1:{self.air_port}"\n'
            f"[mqtt]\nport = {self.gate.port}\nkeepalive = 30\n[station]\nkey = '{self.station.public.hex()}'\n{extra}",
        )
        self.hubs.append(await made.start())
        await until(lambda: bytes.fromhex(made.ready["hub_id"]) in self.station.hubs, what="hello")
        return made

    async def enrol(self, badge: Badge) -> None:
        """Open the badge's pairing window until a hub has it."""
        badge.window = True
        await badge.rotate()
        await until(lambda: badge.established and badge.downs, what="a session, and the receipt of the enrolment")
        badge.window = False
        await badge.rotate()
        badge.downs.clear()


@contextlib.asynccontextmanager
async def scene(folder: Path, *numbers: int) -> AsyncIterator[Scene]:
    with broker(a_broker(), folder) as broker_port:
        async with air() as (the_air, air_port):
            gate = await Gate(broker_port).start()
            made = Scene(folder, the_air, air_port, broker_port, gate)
            made.badges = [Badge(number, f"badge:{number}") for number in numbers]
            made.station = Station(broker_port, made.badges)
            for badge in made.badges:
                await badge.join(air_port)
            try:
                yield made
            finally:
                for hub in made.hubs:
                    await hub.stop()
                made.station.close()
                for badge in made.badges:
                    await badge.leave()
            for hub in made.hubs:
                assert hub.faults() == []
            assert made.station.bad == []


def play(story: Callable[[Scene], Coroutine[Any, Any, None]], folder: Path, *numbers: int) -> None:
    async def run() -> None:
        async with scene(folder, *numbers) as made:
            await story(made)

    asyncio.run(run())


def test_from_the_pairing_window_to_the_stations_word_on_the_badge(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        badge = s.badges[0]
        hub = await s.hub(extra='[location]\nfixed = "52.9225,-1.4746"\naccuracy = 10\n')
        await s.enrol(badge)
        alarm = badge.event(kinds.SOS)
        await until(lambda: alarm in badge.held and alarm in badge.receipted)
        _, up, number, ident, kind = next(event for event in s.station.events if event[3] == alarm)
        assert (number, ident, kind) == (badge.number, alarm, kinds.SOS)
        facts = json.loads(up.facts)
        assert facts["place"] == {"lat": 52.9225, "lon": -1.4746, "age": 0.0, "source": "fixed", "accuracy": 10.0}
        assert -100 < facts["rssi"] < 0
        assert up.held_ms < 5000, "what the hub says of its own delay, in ms"
        badge.status()
        await until(lambda: s.station.telemetry and badge.uplink)
        assert "place" not in json.loads(s.station.telemetry[-1].facts)
        status = await hub.until_status(lambda status: status["queue"] == 0, "nothing waits")
        assert status["badges"]["1"]["state"] == "established"
        assert (status["radio"], status["radio_usable"]) == ("ok", True)
        assert (hub.folder / "bag").stat().st_mode
        assert await hub.stop() == 0
        await until(lambda: s.station.states[-1]["online"] is False)

    play(story, tmp_path, 1)


def test_four_badges_at_once_each_with_sound_and_their_alarms_ahead_of_it(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        await s.hub()
        for badge in s.badges:
            badge.window = True
            await badge.rotate()
        await until(lambda: all(badge.established for badge in s.badges), what="four sessions")
        for badge in s.badges:
            badge.window = False
        pressed: list[tuple[int, int, float]] = []  # badge, its packet of sound just then, when the station had it
        for index in range(60):
            for badge in s.badges:
                badge.audio(1, index)
            if index % 15 == 7:
                badge = s.badges[index // 15]
                alarm = badge.event(kinds.SOS)
                await until(lambda a=alarm: any(e[3] == a for e in s.station.events))  # type: ignore[misc]
                arrived = next(e[0] for e in s.station.events if e[3] == alarm)
                pressed.append((badge.number, index, arrived))
            await asyncio.sleep(0.025)
        await until(lambda: len({(b, i) for _, b, _, i, _ in s.station.audio}) == 240, what="all sound")
        # how quick they are is measured in bench/
        assert len(pressed) == 4
        for number, at, arrived in pressed:
            after = [when for when, b, _, i, _ in s.station.audio if b == number and i > at]
            assert after
            assert arrived <= min(after), "no sound of later overtook the alarm"
        for badge in s.badges:
            await until(lambda b=badge: b.acks and b.acks[-1][2] == 60)  # type: ignore[misc]

    play(story, tmp_path, 1, 2, 3, 4)


def test_an_alarm_whose_connection_is_refused_is_relayed_by_beacon_and_answered_aloud(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        badge = s.badges[0]
        hub = await s.hub()
        await s.enrol(badge)
        s.fault(badge, connect=False)
        await until(lambda: not badge.connections)
        await badge.listen()
        alarm = badge.event(kinds.SOS)
        pressed = time.monotonic()
        await badge.rotate()
        await until(lambda: any(kind == kinds.SOS for *_, kind in s.station.events), what="the alarm")
        at, up, *_ = next(event for event in s.station.events if event[4] == kinds.SOS)
        assert up.type == relay.BEACON
        assert at - pressed < PROMPT_S
        await until(lambda: badge.answers, what="the answer as an advertisement")
        assert badge.answers[-1] == (alarm, kinds.RECEIVED, badge.rotation)
        assert alarm not in badge.receipted
        await badge.rotate()
        await until(lambda: badge.answers[-1][2] == badge.rotation, what="and a fresh one for the next beacon")
        assert (await hub.status())["broadcast"] == "ok"
        s.fault(badge)
        for _ in range(8):  # the station's word goes out of date while nobody can be reached; each beacon has another
            await badge.rotate()
            with contextlib.suppress(AssertionError):
                await until(lambda: alarm in badge.receipted, 4)
                break
        assert alarm in badge.receipted, "the station's word by a connection that works again"

    play(story, tmp_path, 1)


def test_a_hub_that_was_never_enrolled_relays_the_alarm_and_brings_the_answer_as_a_guest(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        badge = s.badges[0]
        await s.hub(enrol="false")
        badge.kind, badge.seq = kinds.SOS, 1
        await badge.rotate()
        await until(lambda: badge.receipted, PROMPT_S, "the station's word")
        assert badge.held == []
        assert not badge.established
        assert {e[1].type for e in s.station.events} == {relay.BEACON}
        s.station.send(
            bytes.fromhex(s.hubs[0].ready["hub_id"]), relay.DOWN, relay.pack_down_badge(1, s.station.down(1))
        )
        await until(lambda: any(down.type == downlink.STATE for down in badge.downs), what="and the next word")

    play(story, tmp_path, 1)


def test_what_a_killed_hub_held_is_delivered_by_the_next_one_alarms_first(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        badge = s.badges[0]
        hub = await s.hub()
        await s.enrol(badge)
        s.gate.close()
        before = time.monotonic()
        names = [badge.event(kind) for kind in (kinds.BATTERY, kinds.VISIT_START, kinds.SOS)]
        for index in range(20):
            badge.audio(1, index)
        await until(lambda: set(names) <= set(badge.held), what="held")
        held_at = time.monotonic()
        await until(lambda: badge.acks and badge.acks[-1][2] == 20, what="sound held")
        await until(lambda: badge.uplink is False, what="the badge knows that the station is gone")
        await hub.stop(signal.SIGKILL)
        assert not [e for e in s.station.events if e[3] in names]
        badge.kind = kinds.STATUS
        opened = time.monotonic()
        s.gate.open = True
        await hub.start()

        def late() -> list[tuple[float, relay.Up, int, bytes, int]]:
            return [e for e in s.station.events if e[3] in names and e[1].type == relay.EVENT]

        await until(lambda: {e[3] for e in late()} == set(names), what="what was held")
        assert list(dict.fromkeys(e[4] for e in late())) == [kinds.SOS, kinds.VISIT_START, kinds.BATTERY]
        for arrival, up, *_ in late():
            # between what it was at least and what it was at most, but for rounding
            assert (opened - held_at) * 1000 - 5 <= up.held_ms <= (arrival - before) * 1000 + 5
            assert "uncertain" not in json.loads(up.facts)
        await until(lambda: {i for _, _, _, i, _ in s.station.audio} == set(range(20)), what="the sound")
        await hub.until_status(lambda status: status["queue"] == 0, "nothing waits")

    play(story, tmp_path, 1)


def test_a_full_disk_delays_no_alarm_and_is_told_instead_of_held(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        badge = s.badges[0]
        hub = await s.hub()
        await s.enrol(badge)
        await until(lambda: not on_disk(hub.folder / hub.name / "outbox.db"), what="the enrolment is done with")
        hub.full(True)
        badge.audio(1, 0)  # ahead of the alarm: once an event could not be stored, no sound is taken into custody
        alarm = badge.event(kinds.SOS)
        await until(lambda: any(e[3] == alarm for e in s.station.events), PROMPT_S, "the alarm")
        await until(lambda: alarm in badge.receipted, what="its receipt")
        await until(lambda: "failed" in (s.station.health or [{"disk": ""}])[-1]["disk"], what="health")
        await until(lambda: s.station.audio, what="live sound")
        s.station.answers = False
        second = badge.event(kinds.CANCEL)
        await asyncio.sleep(0.3)
        assert alarm not in badge.held
        assert second not in badge.held
        assert badge.acks == []
        hub.full(False)
        await until(lambda: second in badge.held, what="held once the disk is back")
        assert alarm not in badge.held, "its receipt had come"
        await until(lambda: badge.acks)
        assert any("disk:" in line and "WARNING" in line for line in hub.log)

    play(story, tmp_path, 1)


def test_a_station_that_is_silent_is_noticed_and_its_return_clears_everything(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        badge = s.badges[0]
        hub = await s.hub()
        await s.enrol(badge)
        for last in (False, False, False, True):  # a machine that stalls may spoil one of them
            s.station.answers = False
            again = time.monotonic() + RESEND_MS[0] / 1000  # then they are sent again whatever is said
            names = {badge.event(kinds.BATTERY) for _ in range(5)}
            await until(lambda: names <= set(badge.held) & {e[3] for e in s.station.events})  # noqa: B023
            queue = (await asyncio.to_thread(control.ask, hub.folder / hub.name / "hub.sock"))["queue"]
            s.station.answers = True
            s.station.client.publish("tocsin/1/station", b'{"online": true}', 1)
            with contextlib.suppress(AssertionError) if not last else contextlib.nullcontext():
                await until(
                    lambda: names <= badge.receipted,  # noqa: B023
                    again - time.monotonic() - 0.2,
                    "receipts as soon as the station says that it is there",
                )
                assert queue >= 5
                break
        await hub.until_status(lambda status: status["queue"] == 0, "nothing waits")

    play(story, tmp_path, 1)


def test_a_third_of_all_packets_lost_loses_nothing(tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        badge = s.badges[0]
        await s.hub()
        s.fault(badge, loss=0.3, duplicate=0.2, reorder=0.2)
        await s.enrol(badge)
        names = []
        for _ in range(5):
            names.append(badge.event(kinds.SOS))
            await asyncio.sleep(0.1)
        await until(lambda: {e[3] for e in s.station.events} >= set(names))

    play(story, tmp_path, 1)


def test_the_air_going_away_and_coming_back_is_survived(tmp_path: Path) -> None:
    async def story() -> None:
        config = '[hub]\nname = "x"\n[radio]\nair = "127.0.0.1:{port}"\n[station]\nkey = "' + "ab" * 32 + '"\n'
        async with air() as (_, port):
            hub = HubProcess(tmp_path, "x", config.format(port=port))
            await hub.start()
            assert hub.ready["part"] == "hub"
        # its door is shut, and then the connection is reset by the end of the air
        assert hub.process is not None
        assert hub.process.returncode is None
        assert await hub.stop(signal.SIGINT) == 0
        assert hub.faults() == []

    asyncio.run(story())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_hub_without_radio_or_broker_waits_and_can_be_stopped(tmp_path: Path, number: int) -> None:
    async def story() -> None:
        (tmp_path / "x.toml").write_text(
            '[radio]\nair = "127.0.0.1:9"\n[mqtt]\nport = 9\n[station]\nkey = "' + "ab" * 32 + '"\n'
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub.cli", "run", "--config", str(tmp_path / "x.toml"), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        first = (await process.stderr.readline()).decode()
        assert "WARNING" in first
        process.send_signal(number)
        async with asyncio.timeout(SOON_S):
            assert await process.wait() == 0

    asyncio.run(story())
