"""The check before leaving as the wearer gets it: the badge's own firmware, a real hub, broker and station."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.chain import scenario
from drill.stage import Stage
from hub.radio import Radio
from hub.ready_check import look

READY = {
    "battery": 80,
    "mains": False,
    "station_answers": True,
    "clock_synchronised": True,
    "place_known": True,
    "disk": "ok",
    "radio": "ok",
    "radio_usable": True,
    "queue": 0,
    "badges": {"12": {"state": "established", "enrolled": True, "battery": 60, "rssi": -60}},
}


def grave(**changed: Any) -> list[str]:
    """What the wearer is told of, in a status that is good but for some of it."""
    return [f.what for f in look({**READY, **changed}, [12]) if f.grave and not f.good]


def test_what_could_keep_an_alarm_from_getting_through_is_grave_and_the_rest_is_not() -> None:
    badge = READY["badges"]["12"]  # type: ignore[index]
    assert grave() == []
    assert grave(battery=12) == ["hub battery"]
    assert grave(battery=12, mains=True) == []
    assert grave(disk="failed: full") == ["disk"]
    assert grave(radio="there is no adapter", radio_usable=False) == ["radio"]
    assert grave(badges={"12": {**badge, "battery": 9}}) == ["badge 12"]
    assert grave(badges={"12": {**badge, "rssi": -95}}) == ["badge 12"]
    assert grave(certificate_days=1) == ["certificate"]
    assert grave(certificate_days=30) == []
    assert grave(certificate_days=30, clock_synchronised=False) == ["clock"], "it decides about certificates"
    assert grave(clock_synchronised=False) == [], "and about nothing else: the station's clock counts"
    # told to the technician and to the station, and no reason to doubt that help would know
    assert grave(place_known=False, queue=3, second_path={"ok": False, "state": "no SIM"}) == []


def test_with_one_of_two_adapters_gone_the_path_works_and_with_both_it_does_not() -> None:
    radio = Radio("hci0,hci1", None, "", lambda *_: None)

    def found() -> tuple[bool, bool]:
        """Whether the radio is as it should be, and whether the wearer is told that it is not."""
        status = {**READY, "radio": radio.problem or "ok", "radio_usable": radio.usable}
        (finding,) = [f for f in look(status, [12]) if f.what == "radio"]
        return finding.good, finding.grave and not finding.good

    assert found() == (False, True), "neither has begun"
    for adapter in radio.adapters:
        adapter.problem = ""
        adapter.ready.set()
    assert found() == (True, False)
    gone = radio.adapters[1]
    gone.problem = "it was pulled out"
    gone.ready.clear()
    assert found() == (False, False), "for the technician"
    radio.adapters[0].problem = "it was pulled out"
    radio.adapters[0].ready.clear()
    assert found() == (False, True)


def test_a_self_test_by_a_hub_with_a_low_battery_is_felt_as_such_and_passes_once_it_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = tmp_path / "power/BAT0"
    supply.mkdir(parents=True)
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("capacity", "9")):
        (supply / name).write_text(text)
    monkeypatch.setenv("TOCSIN_HUB_HUB_POWER_SUPPLY", str(supply.parent))

    async def tested(stage: Stage) -> tuple[str, float]:
        """What is felt after four presses of the side button, and after how many seconds."""
        badge = stage.badges["b1"]
        start = len(badge.events)
        began = asyncio.get_running_loop().time()
        await badge.do("self_test")

        def answer(event: dict[str, Any]) -> bool:
            return event["type"] == "haptic" and event["pattern"] in ("test_passed", "test_failed")

        assert await badge.wait_for(answer, 12, start)
        felt = next(event for event in badge.events[start:] if answer(event))
        return felt["pattern"], asyncio.get_running_loop().time() - began

    async def story() -> None:
        stage = Stage(scenario(1), tmp_path / "stage")
        try:
            await stage.start()
            felt, seconds = await tested(stage)
            assert felt == "test_failed"
            assert seconds < 8.5, "it is the answer that says so, not its want"
            (test,) = (await stage.station.json("/api/tests"))["tests"]
            assert (test["ready"], test["passed"]) == (False, False)
            entries = (await stage.station.json("/api/supervision"))["supervision"]
            (entry,) = [e for e in entries if e["state"] == "not_ready"]
            assert (entry["until"], entry["text"]) == (None, "not ready to leave: hub battery")
            (supply / "capacity").write_text("90")
            await asyncio.sleep(3)  # presses of the next gesture are none of this one's
            assert (await tested(stage))[0] == "test_passed"
            entries = (await stage.station.json("/api/supervision"))["supervision"]
            assert not [e for e in entries if e["state"] == "not_ready" and e["until"] is None]
        finally:
            await stage.stop()

    asyncio.run(story())
