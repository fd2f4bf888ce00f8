"""The hub on the real Linux Bluetooth stack, with the badges' real firmware: bleak, bluetoothd and kernel between.

One story on one stage, told in order: what an earlier test set up, a later one uses.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import image
import pytest
from bluez_stage import BluezStage
from figures import figure, print_figures
from silent_peer import SilentPeer

from drill.processes import DidNotStart
from drill.scenario import OperatorStep
from hub import ready_check
from hub.recovery import HAND_OVER_STATUS
from protocol import custody

BADGES = "alice bob carol dave"
SOUND_S = 30.0
AFTER_FAULT_S = 240.0  # an adapter that is stuck is switched off and on after a minute; 100 s were seen
Story = Callable[[BluezStage], Coroutine[Any, Any, None]]


class Teller:
    """Tells stories on one stage, on one event loop."""

    def __init__(self, stage: BluezStage, runner: asyncio.Runner) -> None:
        self.stage = stage
        self._runner = runner

    def __call__(self, story: Story) -> None:
        self._runner.run(story(self.stage))


@pytest.fixture(scope="module")
def tell(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Teller]:
    try:
        made = image.build(image.find())
    except image.Missing as missing:
        pytest.skip(str(missing))
    except subprocess.CalledProcessError as problem:
        pytest.fail(f"the guest cannot be built: {problem}")
    with pytest.MonkeyPatch.context() as monkeypatch, asyncio.Runner() as runner:
        stage = BluezStage(made, tmp_path_factory.mktemp("bluez"), monkeypatch, BADGES, adapters=2)
        try:
            begun = time.monotonic()
            runner.run(stage.start())
            figure("guest booted, s", stage.guest.boot_s)
            figure("stage ready, s", time.monotonic() - begun)
            yield Teller(stage, runner)
        finally:
            runner.run(stage.stop())
            print_figures(pytestconfig)
        assert [t.text for t in stage.troubles] == []


def test_the_hub_switches_its_adapters_on_and_hears_badges(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        # a hub is ready with the first that works
        await s.wait(lambda st: all(a["state"] == "ok" for a in st["adapters"].values()), 60, "both adapters work")
        for name in ("hci0", "hci1"):
            assert (await s.adapter(name))["Powered"], name
        numbers = {str(badge.number) for badge in s.badges.values()}
        took = await s.wait(lambda status: numbers <= set(status["badges"]), 30, "all badges heard")
        figure("all badges heard, s", took)

    tell(story)


def test_a_wrong_passkey_pairs_nothing_and_enrols_nothing(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        code, text = await s.enrol("alice", (s.cards["alice"] + 1) % 1_000_000)
        assert code == 1
        assert "refuses" in text, text
        assert await s.devices(Paired=True) == {}
        assert (await s.status())["keys"] == 0

    tell(story)


def test_a_badge_is_paired_by_its_card_and_enrolled(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        assert await s.enrol("alice") == (0, f"badge {s.badges['alice'].number} is paired and enrolled")
        (device,) = (await s.devices(Paired=True)).values()
        assert device["Bonded"]
        assert device["Connected"]
        assert await s._links(s.badges["alice"].number) == {"bag"}

    tell(story)


def test_all_badges_are_enrolled_and_spread_over_the_adapters(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        for outcome in await asyncio.gather(*(s.enrol(badge) for badge in ("bob", "carol", "dave"))):
            assert outcome[0] == 0, outcome[1]
        await s.connected(*s.badges)
        # two and two, unless an adapter was shunned for a while because two dials in a row had no answer

        def spread(status: dict[str, Any]) -> bool:
            numbers = [adapter["connections"] for adapter in status["adapters"].values()]
            return len(numbers) == 2 and sum(numbers) == len(s.badges) and min(numbers) > 0

        await s.wait(spread, 20, "each adapter has some of the badges")

    tell(story)


def test_an_alarm_reaches_the_operator_and_the_wearer_feels_it(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        pressed = time.monotonic()
        await s.badges["alice"].do("hold", seconds=4.0)
        felt = await s.felt("alice", "station_has_it", pressed, 30) - 1.5
        figure("SOS until the wearer feels that the station has it, s", felt)
        assert 1000 * felt < custody.NOT_DELIVERED_MS, "told too late: the badge had said that it is not delivered"
        while not (found := list(s.operators["op1"].seen.values())):
            assert time.monotonic() - pressed < 30, "no console has it"
            await asyncio.sleep(0.1)
        (seen,) = found
        assert seen.alarm["kind"] == "sos"
        figure("SOS until the operator's console has it, s", seen.first - pressed - 1.5)
        await s.wait(lambda status: status["queue"] == 0, 20, "nothing waits in the hub")

    tell(story)


def test_forty_packets_of_sound_a_second_arrive_without_a_gap(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        async def archived() -> dict[str, Any]:
            (alarm,) = (await s.station.json("/api/alarms"))["alarms"]
            sound: dict[str, Any] = alarm["audio"]
            return sound

        before, begun = (await archived())["seconds"], time.monotonic()
        arrived = lasted = 0.0
        while arrived < SOUND_S:  # that long, so that who does not come to his turn for two seconds is not yet too slow
            assert lasted < 2 * SOUND_S, f"{arrived} s of sound in {lasted} s"
            await asyncio.sleep(0.25)
            arrived = (await archived())["seconds"] - before
            lasted = time.monotonic() - begun
        figure("sound archived in a second, s", arrived / lasted)
        figure("notifications a second", 40 * arrived / lasted)
        assert arrived > 0.9 * lasted
        repaired = time.monotonic()
        while (sound := await archived())["gaps"]:  # what was lost on the air is asked for again, and may be on its way
            assert time.monotonic() - repaired < 10, sound
            await asyncio.sleep(0.1)
        for do, outcome, welfare in (("claim", "", ""), ("close", "training", "spoke_to_wearer")):
            step = OperatorStep(0, "op1", do, "alice", "", outcome, welfare, "")
            await s.operators["op1"].perform(step, time.monotonic() + 30)

    tell(story)


def test_a_badge_that_vanishes_is_connected_again_by_itself(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        begun = time.monotonic()
        await s.badges["bob"].do("reset")
        await s.felt("bob", "protected", begun, 80)
        await s.connected("bob")
        figure("badge reset until it is protected again, s", time.monotonic() - begun)

    tell(story)


def test_a_connection_that_bluez_ends_comes_back_and_the_bond_is_kept(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        bonds = set(await s.devices(Paired=True))
        assert len(bonds) == len(s.badges)
        path = next(iter(await s.devices(Connected=True)))
        begun = time.monotonic()
        await s.disconnect(path)
        # it is back in a second or two, which the hub's status may not show; the badge says both
        ended, badge = await s.traced("disconnected", begun, 30, *s.badges)
        again, _ = await s.traced("session", ended, 60, badge)
        await s.connected(*s.badges)
        figure("ended by BlueZ until connected again, s", again - ended)
        assert set(await s.devices(Paired=True)) == bonds

    tell(story)


def test_a_hub_that_is_killed_finds_its_badges_again(tell: Teller) -> None:
    """BlueZ does not end the connections of a program that dies: the badges have to notice."""

    async def story(s: BluezStage) -> None:
        begun = time.monotonic()
        await s.kill("hub:bag")
        await s.revive("hub:bag")
        await s.connected(*s.badges, seconds=AFTER_FAULT_S)
        figure("hub killed until all sessions work again, s", time.monotonic() - begun)

    tell(story)


def test_badges_move_to_the_other_adapter_when_one_is_pulled_out(tell: Teller) -> None:
    """Its connections end first, by the air: Linux 6.1.192 crashes when an adapter goes that has some, more often than
    not (hci_chan_del, when bluetoothd closes their sockets). Nothing that a hub does would save it there.
    """

    async def story(s: BluezStage) -> None:
        begun = time.monotonic()
        await s.cut_off(s.adapters[1], *s.badges)
        await s.wait(lambda status: status["adapters"]["hci1"]["connections"] == 0, 30, "its connections end")
        await s.adapters[1].pull_out()
        await s.wait(lambda status: "adapter" in status["adapters"]["hci1"]["state"], 30, "it is missed")
        await s.connected(*s.badges, seconds=AFTER_FAULT_S)
        figure("adapter lost until the other has its badges, s", time.monotonic() - begun)
        await s.wait(lambda status: status["adapters"]["hci0"]["connections"] == 4, 20, "the other has all of them")
        await s.wait(lambda status: "hci1" in status["last_step"], 30, "what is done about it")
        status = await s.status()
        (radio,) = [finding for finding in ready_check.look(status) if finding.what == "radio"]
        assert (radio.good, radio.grave) == (False, False), "told to the technician; every self-test passes"
        await s.restore()
        begun = time.monotonic()
        await s.adapters[1].plug_in()
        await s.wait(lambda status: status["adapters"]["hci1"]["state"] == "ok", 60, "it works again")
        figure("adapter plugged in until it works, s", time.monotonic() - begun)

    tell(story)


def test_badges_come_back_after_bluetoothd_was_killed(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        begun = time.monotonic()
        await s.guest.kill_bluetoothd()
        await s.wait(lambda status: "bluetooth service" in status["radio"], 30, "it is missed")
        await asyncio.sleep(2)
        started = time.monotonic()
        await s.guest.start_bluetoothd()
        await s.wait(lambda st: all(a["state"] == "ok" for a in st["adapters"].values()), 60, "adapters that work")
        figure("bluetoothd started until both adapters work, s", time.monotonic() - started)
        await s.connected(*s.badges, seconds=AFTER_FAULT_S)
        figure("bluetoothd killed until all sessions work again, s", time.monotonic() - begun)

    tell(story)


def test_a_badge_that_nobody_can_connect_to_hears_the_answer_to_its_alarm(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        for adapter in s.adapters:
            await s.cut_off(adapter, "dave")
        await s.wait(lambda st: st["badges"][str(s.badges["dave"].number)]["state"] != "established", 40, "no session")
        pressed = time.monotonic()
        await s.badges["dave"].do("hold", seconds=4.0)
        figure("SOS by beacon, answer by broadcast, s", await s.felt("dave", "station_has_it", pressed, 40) - 1.5)
        await s.wait(lambda status: status["broadcast"] == "ok", 20, "no trouble with broadcasts")
        await s.restore()
        await s.connected("dave", seconds=AFTER_FAULT_S)

    tell(story)


def test_a_bluetoothd_that_hangs_ends_the_hub_with_the_status_for_systemd(tell: Teller) -> None:
    async def story(s: BluezStage) -> None:
        part = s.parts["hub:bag"]
        part._expected = True
        begun = time.monotonic()
        await s.guest.run("kill -STOP $(pidof bluetoothd)")
        while part.running:
            assert time.monotonic() - begun < 240, "the hub did not hand over"
            await asyncio.sleep(0.2)
        assert part.process is not None
        assert part.process.returncode == HAND_OVER_STATUS
        figure("bluetoothd hangs until the hub hands over, s", time.monotonic() - begun)
        # what systemd does with it; the hub's unit asks for bluetooth.service
        await s.guest.kill_bluetoothd()
        await s.guest.start_bluetoothd()
        try:
            await part.start()
        except DidNotStart as problem:
            raise AssertionError(str(problem)) from None
        took = await s.connected(*s.badges, seconds=AFTER_FAULT_S)
        figure("started again until all sessions work again, s", took)

    tell(story)


def test_a_stranger_that_answers_no_subscription_is_not_taken_for_a_bluetoothd_that_hangs(tell: Teller) -> None:
    """The last one: dave's badge is gone, and somebody advertises its beacons."""

    async def story(s: BluezStage) -> None:
        others = [badge for badge in s.badges if badge != "dave"]
        before = (await s.status())["counters"]

        def no_step(status: dict[str, Any]) -> None:
            for step in ("radio_retry", "radio_power_cycle", "radio_hand_over"):
                assert status["counters"].get(step, 0) == before.get(step, 0), status["last_step"]

        await s.kill("badge:dave")
        await s.wait(lambda st: st["badges"][str(s.badges["dave"].number)]["state"] != "established", 40, "no session")
        stranger = SilentPeer(s.records["dave"])
        await stranger.join(s.port("air"))
        begun = time.monotonic()
        try:
            while stranger.asked < 3:
                assert time.monotonic() - begun < 180, f"it was asked {stranger.asked} times"
                no_step(await s.status())
                await asyncio.sleep(0.5)
            figure(
                "subscriptions that a stranger left unanswered, a minute",
                60 * stranger.asked / (time.monotonic() - begun),
            )
        finally:
            await stranger.leave()
        assert s.parts["hub:bag"].running
        await s.connected(*others)
        # a guest without a processor for four seconds loses one to the air; the hub has cut none
        assert len(s.traces("session", begun, *others)) <= 1
        no_step(await s.status())

    tell(story)
