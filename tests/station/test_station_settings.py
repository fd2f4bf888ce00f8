"""Badge settings at the station: what the badge would refuse is refused here, with a sentence."""

import math
from typing import Any

import pytest
from station_running import Running
from station_world import World

from firmware.badge.settings import TABLE, BadSetting, check
from protocol import kinds
from station import alarms, enrol, settings
from station.model import Badge

VALUES: tuple[Any, ...] = (
    True,
    False,
    None,
    "60 min",
    "1",
    [],
    {},
    math.nan,
    math.inf,
    -1,
    0,
    1,
    5.0,
    30,
    50,
    240,
    600,
    1440,
    1441,
)


def test_the_station_takes_exactly_what_the_badge_takes() -> None:
    assert list(settings.TABLE) == list(TABLE)
    for name, (least, most, default) in TABLE.items():
        edges = () if least is None or most is None else (least, most, least - 0.001, most + 0.001)
        for value in (*VALUES, *edges, default):
            try:
                check(name, value)
            except BadSetting:
                assert settings.fault(name, value), (name, value)
            else:
                assert not settings.fault(name, value), (name, value)
    assert "visit_minute'; known: hold_to_sos" in settings.fault("visit_minute", 60)


@pytest.mark.parametrize("wrong", [{"visit_minutes": "60 min"}, {"visit_minutes": math.nan}, {"nonsense": 1}])
def test_a_setting_that_no_badge_takes_is_refused_and_the_others_stay(world: World, wrong: dict[str, Any]) -> None:
    with pytest.raises(alarms.Invalid, match=next(iter(wrong))):
        world.badge(**wrong)
    badge = world.badge(hold_to_sos=2.0)
    with pytest.raises(alarms.Invalid, match=next(iter(wrong))), world.core.work() as work:
        enrol.change_settings(work, "op1", work.db.get_one(Badge, badge.number), {"hold_to_sos": 1.0, **wrong})
    with world.core.read() as db:
        assert db.get_one(Badge, badge.number).settings == {"hold_to_sos": 2.0}


def test_a_visit_begins_and_is_watched_whatever_an_older_database_holds(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    with world.core.work() as work:
        work.db.get_one(Badge, badge.number).settings = {
            "visit_minutes": "60 min",
            "grace_minutes": None,
            "extend_minutes": math.inf,
            "missed_check_in_audio": "no",
            "hold_to_sos": 2.0,
        }
    start = badge.event(kinds.VISIT_START)
    world.say(hub, hub.event(badge, start))
    world.say(hub, hub.beacon(badge, badge.event(kinds.EXTEND)))
    (visit,) = world.visits(badge)
    assert (visit["minutes"], visit["grace"], visit["audio"], visit["state"]) == (60, 2, False, "running")
    assert visit["due_at"] == pytest.approx(world.clock.now() + 75 * 60)
    world.pass_time(3 * 3600, step=30)
    assert [a["kind"] for a in world.alarms(badge)] == ["missed_check_in"]
    with world.core.work() as work:
        row = work.db.get_one(Badge, badge.number)
        enrol.change_settings(work, "op1", row, {"visit_minutes": 30})
        assert row.settings == {"visit_minutes": 30, "hold_to_sos": 2.0}


def test_a_program_is_told_what_is_wrong_with_a_setting(station: Running) -> None:
    badge = station.badge()
    reply = station.api.post(f"/api/badges/{badge.number}/settings", json={"visit_minutes": "60 min"})
    assert reply.status_code in (400, 422)
    assert reply.json()["error"] == "settings: visit_minutes must be a number, not '60 min'"
    reply = station.api.post("/api/badges", json={"wearer": "A", "settings": {"visit_minutes": 1e9}})
    assert reply.json()["error"] == "settings: visit_minutes must be 0.05 to 1440, not 1000000000.0"
