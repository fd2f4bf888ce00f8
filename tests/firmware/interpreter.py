"""The real MicroPython, and its compiler for the badge, as this environment has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MICROPYTHON = Path(sys.executable).parent / "micropython"
SECONDS = 300


def run(name: str, heap: str = "16M") -> str:
    """Run the checks of tests/firmware/on_badge/`name`.py; what they printed."""
    command = [str(MICROPYTHON), "-X", f"heapsize={heap}", "tests/firmware/on_badge/run.py", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout + done.stderr
