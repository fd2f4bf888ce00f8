"""A drill's file is either understood completely or refused with one line that says where and what is allowed."""

import subprocess
import sys
import wave
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drill.scenario import BadgeStep, KillFault, LinkFault, OperatorStep, Scenario, VisitStep, load
from drill.validate import ScenarioError

FOLDER = Path(__file__).parent

# the example of the specification, every form in it once
EXAMPLE = """
title = "SOS in a library"
seed = 7

[[badge]]
id = "alice"
wearer = "Cllr A. Example"
microphone = "speech.wav"
hold_to_sos = 1.5
broken = ["haptic"]

[[hub]]
id = "bag"
location = "52.9225,-1.4746"
badges = ["alice"]
clock_offset = 0.0

[broker]
kind = "auto"

[station]
workers = 1

[[step]]
at = 1.0
badge = "alice"
do = "hold"
seconds = 2.0

[[step]]
at = 4.0
operator = "op1"
do = "claim"
alarm = "alice"

[[step]]
at = 5
operator = "op1"
do = "note"
text = "hello"

[[step]]
at = 6
operator = "op1"
do = "close"
outcome = "training"
welfare = true

[[step]]
at = 0.5
visit = { badge = "alice", minutes = 0.2, grace = 0.1, place = "Library", with = "surgery" }

[[fault]]
from = 2.0
to = 8.0
link = "alice-bag"
loss = 0.3
corrupt = 0.1
duplicate = 0.1
reorder = 0.1
delay_ms = 20
connect = false
down = true

[[fault]]
from = 3.0
to = 20.0
uplink = "bag"
down = true

[[fault]]
at = 5.0
kill = "hub:bag"

[[fault]]
from = 2.0
to = 9.0
disk_full = "bag"

[[expect]]
alarm = "alice"
kind = "sos"
received_within = 2.0
claimed_within = 10
via = "connection"
count = 1

[[expect]]
haptic = "alice"
pattern = "station_has_it"
after = 1
by = 9

[end]
at = 30.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario")
    with wave.open(str(path / "speech.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00\x01" * 800)
    (path / "noise.wav").write_bytes(b"RIFF nothing of the kind")
    (path / "empty.wav").write_bytes(b"")
    return path


def parsed(folder: Path, text: str | bytes, name: str = "drill.toml") -> Scenario:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(file)


def test_the_example_of_the_specification_is_understood(folder: Path) -> None:
    drill = parsed(folder, EXAMPLE)
    assert (drill.title, drill.seed, drill.end, drill.operators) == ("SOS in a library", 7, 30.0, ("op1",))
    assert drill.badges[0].settings == {"hold_to_sos": 1.5}
    assert drill.badges[0].microphone == (folder / "speech.wav").resolve()
    assert [type(step) for step in drill.steps[:1]] == [VisitStep]
    assert next(fault for fault in drill.faults if isinstance(fault, KillFault)).seconds == 1.0
    link = next(fault for fault in drill.faults if isinstance(fault, LinkFault))
    assert link.air["connect"] is False
    assert link.air["loss"] == 0.3


def test_defaults_are_those_of_the_specification(folder: Path) -> None:
    drill = parsed(
        folder,
        """
        [[badge]]
        id = "alice"
        [[badge]]
        id = "bob"
        [[hub]]
        id = "bag"
        [[step]]
        at = 1
        operator = "op1"
        do = "claim"
        [[step]]
        at = 1
        badge = "bob"
        do = "hold"
        """,
    )
    assert drill.hubs[0].badges == ("alice", "bob")
    assert (drill.broker, drill.workers, drill.hubs[0].clock_offset) == ("auto", 1, 0.0)
    assert drill.badges[0].microphone is None
    claim, hold = drill.steps
    assert isinstance(claim, OperatorStep)
    assert claim.alarm is None
    assert isinstance(hold, BadgeStep)
    assert hold.arguments == {"seconds": 2.0}


def replaced(old: str, new: str) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new, 1)


MISTAKES = {
    "unknown key at the top": ("seed = 7", "sed = 7", "'sed' is not known"),
    "unknown act": ('do = "hold"', 'do = "hug"', "step 1: do: 'hug' is not known; allowed: hold, press"),
    "unknown argument": ("seconds = 2.0", "second = 2.0", "step 1: 'second' is not known"),
    "act without the argument": ('do = "hold"', 'do = "press"', "step 1: 'seconds' is not known"),
    "unknown badge": ('badge = "alice"\ndo', 'badge = "alic"\ndo', "step 1: badge: no badge 'alic'"),
    "unknown operator": ('operator = "op1"', 'operator = "bob"', "step 2: operator: no operator 'bob'"),
    "unknown hub": ('uplink = "bag"', 'uplink = "bog"', "fault 2: uplink: no hub 'bog' in this drill; allowed: bag"),
    "unknown link": ('"alice-bag"', '"alice"', "fault 1: link: 'alice' is no link"),
    "unknown victim": ('"hub:bag"', '"hub:x"', "fault 3: kill: 'hub:x' is not known; allowed: hub:bag, broker"),
    "unknown pattern": ('"station_has_it"', '"purr"', "expect 2: pattern: 'purr' is not known; allowed: pressed"),
    "unknown setting": ("hold_to_sos", "hold_to_tea", "badge 1: 'hold_to_tea' is not known"),
    "setting out of range": ("hold_to_sos = 1.5", "hold_to_sos = 9", "hold_to_sos is from 0.5 to 4.0, not 9"),
    "bad broken": ('["haptic"]', '["heart"]', "badge 1: broken: 'heart' is not known; allowed: microphone"),
    "wrong type": ("at = 4.0", 'at = "4"', "step 2: at: must be a number, not '4'"),
    "not finite": ("at = 4.0", "at = nan", "step 2: at: must be a number from 0"),
    "truth is no number": ("at = 4.0", "at = true", "step 2: at: must be a number, not True"),
    "negative time": ("at = 4.0", "at = -4.0", "step 2: at: must be a number from 0"),
    "ends before it begins": ("to = 8.0", "to = 1.0", "fault 1: to: must be later than from"),
    "more than certain": ("loss = 0.3", "loss = 1.3", "fault 1: loss: must be a number from 0 to 1, not 1.3"),
    "no such file": ('"speech.wav"', '"none.wav"', "microphone: 'none.wav' cannot be read: No such file"),
    "not a wav": ('"speech.wav"', '"noise.wav"', "microphone: 'noise.wav' is not a WAV file"),
    "empty wav": ('"speech.wav"', '"empty.wav"', "microphone: 'empty.wav' is not a WAV file"),
    "bad id": ('id = "alice"', 'id = "Alice"', "badge 1: id: 'Alice' is no name"),
    "bad location": ('"52.9225,-1.4746"', '"Derby"', "hub 1: location: 'Derby' is no place"),
    "no grace": ("grace = 0.1", "grace = 0", "step 5: visit: grace: must be a number from 0.01 to 1440, not 0"),
    "no minutes": ("minutes = 0.2, ", "", "step 5: visit: minutes is missing"),
    "not TOML": ("[[badge]]", "[[badge", "is not TOML"),
    "no table": ("[end]\nat = 30.0", "", None),
    "a list for a table": ("[station]\nworkers = 1", "", None),
    "two subjects": ('uplink = "bag"', 'uplink = "bag"\nkill = "broker"', "fault 2: needs exactly one of"),
    "absent and when": ("count = 1", "absent = true", "expect 1: absent: says that it must not happen"),
    "unknown broker": ('kind = "auto"', 'kind = "rabbit"', "broker: kind: 'rabbit' is not known"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_its_place(folder: Path, name: str) -> None:
    old, new, told = MISTAKES[name]
    if told is None:
        parsed(folder, replaced(old, new))
        return
    with pytest.raises(ScenarioError) as caught:
        parsed(folder, replaced(old, new))
    text = str(caught.value)
    assert told in text
    assert text.startswith(str(folder / "drill.toml"))
    assert "\n" not in text


def test_a_badge_without_drill_and_a_drill_without_badge(folder: Path) -> None:
    with pytest.raises(ScenarioError, match=r"has no \[\[badge\]\]"):
        parsed(folder, 'title = "nobody"')


def test_a_folder_and_a_missing_file_are_told(folder: Path) -> None:
    for file in (folder, folder / "missing.toml"):
        with pytest.raises(ScenarioError, match="cannot be read"):
            load(file)


def test_every_drill_of_the_project_is_understood() -> None:
    for file in FOLDER.glob("*.toml"):
        load(file)


def test_the_command_says_it_on_standard_error_and_exits_2(folder: Path) -> None:
    file = folder / "typo.toml"
    file.write_text(replaced('do = "hold"', 'do = "hug"'))
    command = [sys.executable, "-c", "import sys; from drill.cli import main; sys.exit(main())", "run", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "step 1: do: 'hug' is not known" in done.stderr
    assert done.stdout == ""


LINES = EXAMPLE.strip().split("\n")
KEYS = sorted({line.split(" = ")[0] for line in LINES if " = " in line})
VALUES = st.one_of(
    st.booleans().map(lambda value: str(value).lower()),
    st.integers().map(str),
    st.floats().map(lambda value: str(value).replace("infinity", "inf")),
    st.text(max_size=12).map(lambda text: '"' + text.replace("\\", "").replace('"', "") + '"'),
    st.sampled_from(["[]", "{}", '["alice"]', "[[]]", "1979-05-27", '"alice-bag"', '"hub:bag"', '"op1"']),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The example with a few lines dropped, doubled, swapped or given other values, or with bytes changed."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["drop", "double", "swap", "value", "key", "table"]))
        if how == "drop":
            del lines[where]
        elif how == "double":
            lines.insert(where, lines[where])
        elif how == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[where], lines[other] = lines[other], lines[where]
        elif how == "value":
            lines[where] = f"{lines[where].split(' = ')[0] or 'x'} = {draw(VALUES)}"
        elif how == "key":
            lines.insert(where, f"{draw(st.sampled_from(KEYS))} = {draw(VALUES)}")
        else:
            lines.insert(where, draw(st.sampled_from(["[[step]]", "[[fault]]", "[end]", "[broker]", "[[expect]]"])))
        lines = lines or [""]
    data = "\n".join(lines).encode("utf-8", "replace")
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(data)))
        data = data[:cut] + draw(st.binary(max_size=4)) + data[cut + draw(st.integers(0, 3)) :]
    return data


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=mutated())
def test_any_file_is_understood_or_refused_with_one_line(folder: Path, data: bytes) -> None:
    told = ""
    try:
        parsed(folder, data, "mutated.toml")
    except ScenarioError as error:
        told = str(error)
    assert "\n" not in told
    assert not told or told.startswith(str(folder))
