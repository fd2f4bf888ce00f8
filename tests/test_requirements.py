"""docs/requirements.md is complete and true: every row names what shows it, and all of that is run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PAGE = TOP / "docs" / "requirements.md"
# what must be shown; the rest of C and D must stand somewhere, shown or not yet
SHOWN = [f"A{n}" for n in range(1, 16)] + [f"B{n}" for n in range(1, 11)] + ["D4", "D5", "E1", "E2", "E3"]
SOMEWHERE = [f"C{n}" for n in range(1, 24)] + [f"D{n}" for n in range(1, 6)]
# Rows that may say "open", and whether they may name nothing else. Whoever closes a gap takes it out here too.
OPEN: dict[str, bool] = {}
SUITES = ("test", "test-bluez")  # targets of the Makefile that run tests
DRILL = "tests/drills/test_drills.py::test_the_drill_passes[{}]"


@dataclass
class Row:
    """One line of the table."""

    tests: list[str] = field(default_factory=list)
    drills: list[str] = field(default_factory=list)
    open: str = ""
    strange: list[str] = field(default_factory=list)


def read(page: str) -> tuple[dict[str, Row], dict[str, str], list[str]]:
    """Rows that are shown, rows that are not yet, and what is wrong with the page itself."""
    shown: dict[str, Row] = {}
    waiting: dict[str, str] = {}
    wrong = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not re.match(r"\| [A-E]\d+ \|", line):
            continue
        name = cells[0]
        if name in shown or name in waiting:
            wrong.append(f"{name} stands there twice")
        elif len(cells) == 2:
            waiting[name] = cells[1]
        elif len(cells) == 4 and all(cells):
            row = shown[name] = Row()
            for entry in cells[2].split("<br>"):
                text = entry.strip().strip("`")
                if entry.startswith("open: ") and len(entry) > 10:
                    row.open = entry
                elif text.startswith("tests/") and "::" in text:
                    row.tests.append(text)
                elif text.startswith("tests/drills/") and text.endswith(".toml"):
                    row.drills.append(text)
                else:
                    row.strange.append(entry)
        else:
            wrong.append(f"{name} has {len(cells)} cells; a row that is shown has four, one that is not yet has two")
    return shown, waiting, wrong


def matches(name: str, run: dict[str, str | None]) -> list[str]:
    """The tests that a name means: that one, or without brackets all its cases."""
    return [node for node in run if node == name or (not name.endswith("]") and node.startswith(name + "["))]


def faults(page: str, run: dict[str, str | None], files: set[str], may_be_open: dict[str, bool]) -> list[str]:
    """Everything that is wrong. `run`: what the suites run, and why it shows nothing; `files`: the drills there are."""
    shown, waiting, wrong = read(page)
    wrong += [f"{name} is missing" for name in SHOWN if name not in shown]
    wrong += [f"{name} is missing" for name in SOMEWHERE if name not in shown and name not in waiting]
    wrong += [f"{name}: says nothing" for name, text in waiting.items() if len(text) < 12]
    for name in may_be_open:
        if name not in shown or not shown[name].open:
            wrong.append(f"{name} is not open any more: take it out of OPEN in tests/test_requirements.py")
    for name, row in shown.items():
        wrong += [f"{name}: {entry!r} is neither a test nor a drill" for entry in row.strange]
        if row.open and name not in may_be_open:
            wrong.append(f"{name} may not be open")
        if not row.tests and not row.drills and not (row.open and may_be_open.get(name, False)):
            wrong.append(f"{name} names no test")
        for drill in row.drills:
            if drill not in files:
                wrong.append(f"{name}: there is no {drill}")
            elif DRILL.format(Path(drill).stem) not in run:
                wrong.append(f"{name}: no suite runs {drill}")
        for test in row.tests:
            nodes = matches(test, run)
            if not nodes:
                wrong.append(f"{name}: no suite runs {test}")
            wrong += [f"{name}: {node} {run[node]}" for node in nodes if run[node]]
    return wrong


def arguments(makefile: str, target: str) -> list[list[str]]:
    """With what a target of the Makefile calls pytest, each time. Raises ValueError if it does not."""
    text = makefile
    for name, value in re.findall(r"^(\w+) *[?:]?= *(.*)$", makefile, re.MULTILINE):
        text = text.replace(f"$({name})", value)
    recipe = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    calls = re.findall(r"-m pytest ([^|;\n]*)", recipe.group(1)) if recipe else []
    if not calls:
        raise ValueError(f"make {target} calls no pytest")
    return [shlex.split(re.sub(r"(?<=-n )\d+", "0", call)) for call in calls]


def collected() -> dict[str, str | None]:
    """Every test that the suites run, as pytest itself says."""
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    found: dict[str, str | None] = {}
    for call in (call for target in SUITES for call in arguments(makefile, target)):
        command = [sys.executable, str(TOP / "tests" / "collect_only.py"), *call]
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found.update(json.loads(done.stdout))
    return found


def test_every_row_is_shown_by_tests_that_are_run() -> None:
    run = collected()
    files = {path.relative_to(TOP).as_posix() for path in (TOP / "tests" / "drills").glob("*.toml")}
    assert faults(PAGE.read_text(encoding="utf-8"), run, files, OPEN) == []


# --- the check itself -------------------------------------------------------------------------------------------

RUN: dict[str, str | None] = {
    "tests/x.py::test_good": None,
    "tests/x.py::test_cases[one]": None,
    "tests/x.py::test_cases[two]": None,
    "tests/x.py::test_half[one]": None,
    "tests/x.py::test_half[two]": "is marked skip",
    "tests/x.py::test_never": "is marked xfail",
    DRILL.format("sos"): None,
}
DRILLS = {"tests/drills/sos.toml", "tests/drills/forgotten.toml"}
MAY: dict[str, bool] = {"A3": False, "A14": True}


def page(**rows: str | None) -> str:
    """A page without fault, but for the rows given: what shows them, or None for no row at all."""
    by: dict[str, str | None] = dict.fromkeys(SHOWN, "`tests/x.py::test_good`")
    by |= {"A3": "`tests/drills/sos.toml`<br>open: while updating", "A14": "open: all of it"}
    by |= rows
    lines = [f"| {name} | what | {shows} | – |" for name, shows in by.items() if shows is not None]
    lines += [f"| {name} | nobody has built it yet |" for name in SOMEWHERE if name not in by]
    return "\n".join(lines)


def test_a_page_without_fault_passes() -> None:
    assert faults(page(A1="`tests/x.py::test_cases`", A2="`tests/x.py::test_cases[two]`"), RUN, DRILLS, MAY) == []
    assert faults(page(), RUN, DRILLS, MAY) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (page(A5=None), "A5 is missing"),
        (page(E3=None), "E3 is missing"),
        (page().replace("| C7 | nobody has built it yet |", ""), "C7 is missing"),
        (page().replace("| C7 | nobody has built it yet |", "| C7 | – |"), "C7: says nothing"),
        (page() + "\n| A5 | what | `tests/x.py::test_good` | – |", "A5 stands there twice"),
        (page(A5="–"), "A5: '–' is neither a test nor a drill"),
        (page(A5="see the README"), "A5 names no test"),
        (page(A5=""), "A5 has 4 cells"),
        (page(B3="`tests/x.py::test_gone`"), "B3: no suite runs tests/x.py::test_gone"),
        (page(B3="`tests/x.py::test_cases[three]`"), "B3: no suite runs tests/x.py::test_cases[three]"),
        (page(B3="`tests/x.py::test_goo`"), "B3: no suite runs tests/x.py::test_goo"),
        (page(B3="`tests/x.py::test_never`"), "B3: tests/x.py::test_never is marked xfail"),
        (page(B3="`tests/x.py::test_half`"), "B3: tests/x.py::test_half[two] is marked skip"),
        (page(D4="`tests/drills/none.toml`"), "D4: there is no tests/drills/none.toml"),
        (page(D4="`tests/drills/forgotten.toml`"), "D4: no suite runs tests/drills/forgotten.toml"),
        (page(A5="`tests/x.py::test_good`<br>open: the rest of it"), "A5 may not be open"),
        (page(A5="open: all of it"), "A5 names no test"),
        (page(A3="open: all of it"), "A3 names no test"),
        (page(A14="`tests/x.py::test_good`"), "A14 is not open any more"),
        (page(A14="open:"), "A14 names no test"),
    ],
)
def test_every_kind_of_fault_is_found(changed: str, says: str) -> None:
    found = faults(changed, RUN, DRILLS, MAY)
    assert [fault for fault in found if fault.startswith(says)], found


def test_what_the_suites_run_is_read_from_the_makefile() -> None:
    makefile = (
        "WORKERS ?= 2\nPYTEST = $(BIN)/python -m pytest -x\n.PHONY: test\ntest: check\n"
        "\t@$(PYTEST) -n $(WORKERS) --ignore tests/bluez || status=1; \\\n\t$(PYTEST) tests/y.py || status=1\n"
        "\nbench: x\n\t@y\n"
    )
    assert arguments(makefile, "test") == [["-x", "-n", "0", "--ignore", "tests/bluez"], ["-x", "tests/y.py"]]
    with pytest.raises(ValueError, match="make bench calls no pytest"):
        arguments(makefile, "bench")
    real = (TOP / "Makefile").read_text(encoding="utf-8")
    assert "tests/bluez" in arguments(real, "test-bluez")[0]


def test_marks_and_skips_that_nothing_decides_are_seen_by_pytest_itself(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n"
        "def test_runs():\n    pass\n\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_cases(n):\n    pass\n\n"
        "@pytest.mark.skip(reason='later')\ndef test_skipped():\n    pass\n\n"
        "@pytest.mark.xfail\ndef test_fails():\n    assert False\n\n"
        "@pytest.mark.skipif(True, reason='always')\ndef test_if():\n    pass\n\n"
        "@pytest.mark.skipif('sys.platform == \"plan9\"')\ndef test_elsewhere():\n    pass\n\n"
        "def test_gives_up():\n    'For now.'\n    pytest.skip('not today')\n\n"
        "def test_asks_first():\n    if not __name__:\n        pytest.skip('no name')\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(TOP / "tests" / "collect_only.py"), str(tmp_path), "--rootdir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {name.split("::")[1]: why for name, why in json.loads(done.stdout).items()} == {
        "test_runs": None,
        "test_cases[1]": None,
        "test_cases[2]": None,
        "test_skipped": "is marked skip",
        "test_fails": "is marked xfail",
        "test_if": "is marked skipif(True)",
        "test_elsewhere": None,
        "test_gives_up": "skips itself at once",
        "test_asks_first": None,
    }
    (tmp_path / "test_broken.py").write_text("import nothing_of_the_kind\n", encoding="utf-8")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "nothing_of_the_kind" in done.stderr
