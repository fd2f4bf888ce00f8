"""Every drill of the project passes: nobody lost, nobody twice, and what its file expects holds.

Each is run by the installed command, as a council would run it; what a drill's file cannot say about sound, tests and
custody is looked up in its report here.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
DRILLS = sorted(file.stem for file in FOLDER.glob("*.toml"))
# starting, enrolling and stopping a drill's parts, on two cores that do something else as well
AROUND_S = 180.0


def run(name: str, folder: Path) -> dict[str, Any]:
    """Runs a drill and returns its report; fails with what the drill said when its exit status is not 0."""
    report = folder / "report.json"
    command = [str(Path(sys.executable).parent / "tocsin-drill"), "run", str(FOLDER / f"{name}.toml")]
    done = subprocess.run(
        [*command, "--json", str(report)], capture_output=True, text=True, timeout=AROUND_S, check=False
    )
    if done.returncode != 0:
        told = f"{name}: exit status {done.returncode}\n{done.stderr[-6000:]}\n{what_happened(report)}"
        pytest.fail(told, pytrace=False)
    body: dict[str, Any] = json.loads(report.read_text())
    return body


def what_happened(report: Path) -> str:
    """What a failed drill saw, and the last lines of its parts: it may not fail a second time."""
    told = [report.read_text()] if report.exists() else []
    for log in sorted(Path(f"{report}.d", "logs").glob("*")):
        told += [f"--- {log.name}", log.read_text(errors="replace")[-3000:]]
    return "\n".join(told)


def sound(report: dict[str, Any]) -> dict[str, Any]:
    assert len(report["audio"]) == 1
    audio: dict[str, Any] = report["audio"][0]
    return audio


def plain_sos(report: dict[str, Any], folder: Path) -> None:
    alarm = report["alarms"][0]
    order = ("pressed_at", "hub_held_at", "station_received_at", "operator_seen_at", "claimed_at", "listening_at")
    times = [alarm[key] for key in (*order, "closed_at")]
    assert None not in times
    assert times[1:] == sorted(times[1:]) or times[1] <= times[2] + 0.2
    assert alarm["hub"] == "bag"
    audio = sound(report)
    assert audio["gaps"] == 0
    assert audio["seconds_archived"] > 5.0
    assert audio["mouth_to_ear_ms"]["p95"] <= 700
    assert (folder / "report.json.d" / audio["wav"]).stat().st_size > 16000 * 2 * 5


def heard_in_spite_of_loss(report: dict[str, Any], _folder: Path) -> None:
    assert sound(report)["gaps"] == 0


def goes_on_recording(report: dict[str, Any], _folder: Path) -> None:
    assert sound(report)["seconds_archived"] > 5.0


def visit_was_kept(report: dict[str, Any], _folder: Path) -> None:
    (visit,) = report["visits"]
    assert len(visit["checked_in_at"]) == 1
    assert visit["overdue_at"] is None
    assert visit["ended_at"] == pytest.approx(18.5, abs=2.0)


def deadline_was_kept(report: dict[str, Any], _folder: Path) -> None:
    (visit,) = report["visits"]
    (alarm,) = report["alarms"]
    assert alarm["identity"].startswith("station/")
    assert alarm["pressed_at"] == pytest.approx(visit["due_at"] + 3.0, abs=0.1)
    assert visit["overdue_at"] == pytest.approx(alarm["pressed_at"], abs=1.5)


def silence_at_the_start_was_noticed(report: dict[str, Any], _folder: Path) -> None:
    (visit,) = report["visits"]
    said = [entry["at"] for entry in report["supervision"] if entry["state"] == "not_protected"]
    # fifteen seconds after the start the operators know
    assert said
    assert said[0] == pytest.approx(visit["started_at"] + 15.0, abs=2.5)
    assert visit["overdue_at"] == pytest.approx(visit["due_at"] + 3.0, abs=1.5)


def both_tests_are_known(report: dict[str, Any], _folder: Path) -> None:
    assert [test["passed"] for test in report["tests"]] == [True, False]
    assert max(test["seconds"] for test in report["tests"]) <= 10


def second_claim_followed(report: dict[str, Any], _folder: Path) -> None:
    # the drill has no error, so op2 could claim: only possible after op1's claim was taken back
    assert report["alarms"][0]["listening_at"] > 30.0


ALSO = {
    "sos": plain_sos,
    "radio_loss": heard_in_spite_of_loss,
    "reset_in_alarm": goes_on_recording,
    "check_in": visit_was_kept,
    "missed_check_in": deadline_was_kept,
    "self_test": both_tests_are_known,
    "silent_at_start": silence_at_the_start_was_noticed,
    "console_dies": second_claim_followed,
}


@pytest.mark.parametrize("name", DRILLS)
def test_the_drill_passes(name: str, tmp_path: Path) -> None:
    report = run(name, tmp_path)
    assert (report["ok"], report["lost"], report["duplicates"], report["errors"]) == (True, 0, 0, [])
    if name in ALSO:
        ALSO[name](report, tmp_path)
