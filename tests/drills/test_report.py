"""A report is ok exactly when nothing was lost, nobody was alarmed twice, nothing is in `errors` and all held."""

import json
from pathlib import Path
from typing import Any

import pytest

from drill.expect import judge
from drill.report import Alarm, Failed, Haptic, Problem, Report, Signal, percentile
from drill.scenario import AlarmExpect, HapticExpect


def a_report(**changes: Any) -> Report:
    report = Report("test", 10.0, 1)
    report.alarms = [
        Alarm(
            "alice", "sos", "1/1/1", "1-1-1", pressed_at=2.5, station_received_at=2.6, claimed_at=4.0, via="connection"
        ),
        Alarm("alice", "sos", "1/1/2", "1-1-2", pressed_at=5.5, station_received_at=6.5, via="beacon"),
        Alarm("bob", "fall", "2/1/1", "2-1-1", pressed_at=5.5),
        Alarm(
            "eve",
            "sos",
            "3/1/1",
            "3-1-1",
            pressed_at=1.0,
            station_received_at=1.2,
            claimed_at=6.0,
            via="beacon",
            signals=[
                Signal("lanyard", "3/1/1", 1.0, 1.2, "beacon"),
                Signal("sos", "3/1/2", 4.0, 9.0, "connection"),
            ],
        ),
    ]
    report.haptics = [
        Haptic("alice", 2.5, "pressed"),
        Haptic("alice", 5.5, "pressed"),
        Haptic("alice", 3.0, "station_has_it"),
    ]
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def alarm(**changes: Any) -> AlarmExpect:
    fields: dict[str, Any] = dict.fromkeys(("kind", "received_within", "claimed_within", "via", "count"))
    return AlarmExpect(**{"badge": "alice", **fields, "absent": False, "place": "expect 1", **changes})


def haptic(**changes: Any) -> HapticExpect:
    fields: dict[str, Any] = dict.fromkeys(("after", "by", "count"))
    return HapticExpect(
        **{"badge": "alice", "pattern": "pressed", **fields, "absent": False, "place": "expect 1", **changes}
    )


def held(expect: AlarmExpect | HapticExpect) -> bool:
    return judge((expect,), a_report()) == []


@pytest.mark.parametrize(
    ("expect", "holds"),
    [
        (alarm(), True),
        (alarm(kind="sos", count=2), True),
        (alarm(kind="sos", count=1), False),
        (alarm(kind="duress"), False),
        (alarm(kind="duress", absent=True), True),
        (alarm(absent=True), False),
        (alarm(via="beacon", count=1), True),
        (alarm(via="second_path"), False),
        (alarm(via="connection", received_within=0.2), True),
        (alarm(received_within=0.2), False),
        (alarm(received_within=1.5), True),
        (alarm(via="connection", claimed_within=2), True),
        (alarm(via="beacon", claimed_within=20), False),
        (alarm(badge="bob", received_within=100), False),
        (alarm(badge="eve", count=1), True),
        (alarm(badge="eve", kind="sos", via="connection", received_within=6, count=1), True),
        (alarm(badge="eve", kind="sos", received_within=4), False),
        (alarm(badge="eve", via="beacon", received_within=1), True),
        (alarm(badge="eve", kind="lanyard", via="beacon", received_within=1, claimed_within=5, count=1), True),
        (alarm(badge="eve", kind="lanyard", absent=True), False),
        (alarm(badge="eve", kind="fall", absent=True), True),
        (haptic(), True),
        (haptic(count=2), True),
        (haptic(count=1), False),
        (haptic(count=1, by=3), True),
        (haptic(count=1, after=3), True),
        (haptic(after=6), False),
        (haptic(after=6, absent=True), True),
        (haptic(absent=True), False),
        (haptic(pattern="station_has_it", after=2.5, by=3.5), True),
        (haptic(badge="bob", absent=True), True),
    ],
)
def test_an_expectation_holds_or_says_what_was_found(expect: AlarmExpect | HapticExpect, holds: bool) -> None:
    assert held(expect) == holds
    for failed in judge((expect,), a_report()):
        assert failed.expect == "expect 1"
        assert expect.badge in failed.text


@pytest.mark.parametrize(
    "change",
    [
        {"lost": 1},
        {"duplicates": 1},
        {"errors": [Problem(1.0, "hub:bag", "traceback")]},
        {"failed": [Failed("expect 1", "no")]},
    ],
)
def test_one_thing_wrong_is_not_ok(change: dict[str, Any]) -> None:
    assert (a_report().ok, a_report().exit_status) == (True, 0)
    report = a_report(**change)
    assert (report.ok, report.exit_status, report.as_json()["ok"]) == (False, 1, False)


def test_the_file_is_one_json_object_with_the_documented_fields(tmp_path: Path) -> None:
    a_report().write(tmp_path / "deep" / "report.json")
    body = json.loads((tmp_path / "deep" / "report.json").read_text())
    documented = {"title", "ok", "seconds", "lost", "duplicates", "alarms", "haptics", "audio", "visits", "tests"}
    assert documented | {"supervision", "errors"} <= set(body)
    assert body["alarms"][2]["station_received_at"] is None


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 201)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [100.0, 190.0, 198.0, 200.0]
    assert percentile([7.0], 0.01) == 7.0
