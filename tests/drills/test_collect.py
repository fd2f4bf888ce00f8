"""What badges say becomes the report: when a gesture was complete, what was raised, how late sound was heard."""

from pathlib import Path
from typing import Any

import pytest

from drill.collect import Reader, Taken, Told, _kept_away, _overdue_at, mouth_to_ear
from drill.operator import Heard
from drill.scenario import Badge, load

IDENT = "0003aabbccdd0002"


def heard(events: list[dict[str, Any]], **badge: Any) -> tuple[Told, list[str]]:
    told, complaints = Told(), list[str]()
    settings = {"id": "alice", "wearer": "", "microphone": None, "settings": {}, "broken": (), **badge}
    reader = Reader(Badge(**settings), 12, told, lambda _at, text: complaints.append(text))
    for number, event in enumerate(events, 1):
        reader.read({"n": number, **event})
    return told, complaints


def button(at: float, pressed: bool, which: str = "sos") -> dict[str, Any]:
    return {"type": "button", "at": at, "button": which, "pressed": pressed}


def trace(at: float, name: str, **fields: str) -> dict[str, Any]:
    return {"type": "trace", "at": at, "name": name, "fields": fields}


def test_a_hold_is_complete_at_its_threshold_whenever_the_firmware_says_so() -> None:
    told, _ = heard([button(10.0, True), trace(11.53, "raised", kind="sos", ident=IDENT), button(12.0, False)])
    assert told.raised["12/3/2"].at == 11.5
    told, _ = heard(
        [button(10.0, True), trace(12.02, "raised", kind="sos", ident=IDENT)], settings={"hold_to_sos": 2.0}
    )
    assert told.raised["12/3/2"].at == 12.0


def test_presses_are_complete_at_the_last_touch() -> None:
    touches = [button(10 + 0.3 * n + (0.0 if down else 0.1), down) for n in range(5) for down in (True, False)]
    told, _ = heard([*touches[:-1], trace(11.25, "raised", kind="sos", ident=IDENT), touches[-1]])
    assert told.raised["12/3/2"].at == pytest.approx(11.2)


def test_what_nobody_touched_for_is_complete_when_the_badge_says_so() -> None:
    told, _ = heard([button(1.0, True, "side"), trace(30.0, "raised", kind="missed_check_in", ident=IDENT)])
    assert told.raised["12/3/2"].at == 30.0


def test_custody_is_that_of_the_alarm_and_only_alarms_count() -> None:
    told, _ = heard(
        [
            trace(1.0, "raised", kind="check_in", ident="0003aabbccdd0001"),
            trace(2.0, "raised", kind="sos", ident=IDENT),
            trace(2.1, "held", ident=IDENT),
            trace(7.1, "held", ident=IDENT),
            trace(9.0, "raised", kind="sos", ident=IDENT),
        ]
    )
    assert list(told.raised) == ["12/3/2"]
    assert (told.raised["12/3/2"].at, told.raised["12/3/2"].held_at) == (2.0, 2.1)


@pytest.mark.parametrize("named_first", [True, False])
def test_a_capture_has_its_boot_and_number_whichever_pipe_was_faster(named_first: bool) -> None:
    pair = [trace(5.0, "capture", n="4", state="start"), {"type": "capture", "at": 5.0, "on": True}]
    events = [trace(1.0, "booted", boot="0007aabbccdd"), *(pair if named_first else pair[::-1])]
    told, _ = heard([*events, {"type": "capture", "at": 9.0, "on": False, "samples": 64000}])
    assert told.captures == [Taken("alice", 5.0, 7, 4, 64000)]


def test_a_badge_to_which_no_hub_comes_is_a_fault_unless_the_drill_keeps_them_away(tmp_path: Path) -> None:
    (tmp_path / "drill.toml").write_text(
        '[[badge]]\nid = "alice"\n[[badge]]\nid = "bob"\n[[hub]]\nid = "bag"\n'
        '[[fault]]\nfrom = 1.0\nlink = "alice-bag"\ndown = true\n'
        '[[fault]]\nfrom = 1.0\nlink = "bob-bag"\ndelay_ms = 5\n'
    )
    scenario = load(tmp_path / "drill.toml")
    deaf = {"n": 1, **trace(125.0, "fault", subject="radio", error="RadioFailed('deaf',)")}
    for badge, expected in (("alice", []), ("bob", ["fault in radio: RadioFailed('deaf',)"])):
        complaints: list[str] = []
        who = next(b for b in scenario.badges if b.id == badge)
        Reader(who, 12, Told(), lambda _at, text: complaints.append(text), _kept_away(scenario, badge)).read(deaf)  # noqa: B023
        assert complaints == expected


def test_a_visit_that_runs_again_was_overdue_all_the_same() -> None:
    signals = [{"kind": "sos", "received_at": 90.0}, {"kind": "missed_check_in", "received_at": 118.5}]
    alarms: list[dict[str, Any]] = [{"visit": None, "signals": []}, {"visit": 5, "signals": signals}]
    assert _overdue_at({"id": 5, "overdue_at": None}, alarms) == 118.5
    assert _overdue_at({"id": 5, "overdue_at": 118.4}, alarms) == 118.4
    assert _overdue_at({"id": 5, "overdue_at": 160.0}, alarms) == 118.5
    assert _overdue_at({"id": 6, "overdue_at": None}, alarms) is None


def test_a_capture_ends_when_the_badge_is_killed() -> None:
    begin = [trace(5.0, "capture", n="4", state="start"), {"type": "capture", "at": 5.0, "on": True}]
    told, _ = heard([trace(1.0, "booted", boot="0007aabbccdd"), *begin, {"type": "killed", "at": 7.5}])
    assert told.captures == [Taken("alice", 5.0, 7, 4, 40000)]


def test_sound_is_late_by_what_lies_between_the_sample_and_its_arrival() -> None:
    capture = Taken("alice", 5.0, 7, 4, 64000)
    messages = [
        Heard(1, 7, 4, 16000, 400, True, 6.2),
        Heard(1, 7, 4, 0, 400, False, 6.3),
        Heard(1, 6, 4, 0, 400, True, 6.3),
    ]
    assert mouth_to_ear(messages, [capture]) == [pytest.approx(200.0)]


def test_a_firmware_that_fails_is_told_unless_it_was_broken_on_purpose() -> None:
    fault = trace(1.0, "fault", subject="microphone", error="OSError(5,)")
    assert heard([fault])[1] == ["fault in microphone: OSError(5,)"]
    assert heard([fault], broken=("microphone",))[1] == []
    assert "status 1" in heard([{"type": "state", "at": 1.0, "state": "stopped", "status": 1}])[1][0]
    assert heard([{"type": "log", "at": 1.0, "text": "MemoryError: 2049"}])[1] == ["MemoryError: 2049"]
