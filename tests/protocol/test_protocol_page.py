"""docs/protocol.md tells the numbers that the code has: settings, patterns, kinds, times."""

import re
from pathlib import Path

import pytest

from firmware.badge.settings import TABLE as SETTINGS
from protocol import custody, kinds, patterns, protection, visit

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())  # wherever its lines end


def rows(heading: str) -> list[list[str]]:
    """The rows of the table that begins with this heading."""
    table = PAGE[PAGE.index(heading) :].split("\n\n")[0]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()[2:]]


def test_every_setting_is_there_with_its_range_and_default() -> None:
    told = {}
    for name, least, most, default in rows("| name | least |"):
        number = [float(cell) if cell else None for cell in (least, most)]
        told[re.findall(r"`(\w+)`", name)[0]] = (*number, default == "true" if not least else float(default))
    assert told == SETTINGS


def test_every_pattern_is_there_with_its_pulses() -> None:
    told = {name.strip("`"): pulses for name, pulses, _ in rows("| pattern | pulses |")}
    assert set(told) == set(patterns.TABLE)
    for name, text in told.items():
        times = {"three times": 3, "six times": 6}
        many = re.fullmatch(r"(\d+) (three times|six times) \((\d+)\)", text)
        if many:
            on, off = int(many[1]), int(many[3])
            pulses = [(on, off)] * (times[many[2]] - 1) + [(on, 0)]
        else:
            numbers = [int(number) for number in re.findall(r"\d+", text)] + [0]
            pulses = list(zip(numbers[::2], numbers[1::2], strict=True))
        assert tuple(pulses) == patterns.pulses(name), name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"at least (\d+) ms between two patterns", patterns.GAP_MS),
        (r"an alarm below level 2 after ([\d.]+) s", custody.NOT_DELIVERED_MS / 1000),
        (r"then every (\d+) s; another act", custody.REPEAT_MS / 1000),
        (r"\| (\d+) s without proof", protection.LIMIT_MS / 1000),
    ],
)
def test_times_are_those_of_the_code(text: str, value: float) -> None:
    (told,) = re.findall(text, PROSE)
    assert float(told) == value


def test_every_kind_is_in_the_table_of_bodies() -> None:
    told: dict[str, int] = {}
    for names, codes, _ in rows("| kind | code | body |"):
        told.update(zip(names.split(", "), map(int, codes.split(", ")), strict=True))
    assert told == {name: code for code, name in enumerate(kinds.NAMES)}


def test_reminders_are_where_the_page_has_them() -> None:
    (told,) = re.findall(
        r"come (\d+) min and (\d+) min before [^;]*; in visits under (\d+) min at half and at nine", PROSE
    )
    first, second, short = (60_000 * int(minutes) for minutes in told)
    assert visit.reminders(short) == (first, second)
    assert visit.reminders(short - 1000) == ((short - 1000) // 2, (short - 1000) // 10)
