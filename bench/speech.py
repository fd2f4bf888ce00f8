"""What one second of speech costs the badge: coding and sealing, on the real interpreter, with its own code."""

import subprocess
import tempfile
from pathlib import Path

from firmware.emulator import build, launcher
from firmware.emulator.board import Board

# An estimate, not a measurement. Here a core of some GHz runs several instructions a cycle, an ESP32-S3 at 160 MHz less
# than one. Published MicroPython benchmarks put the two 40 to 100 apart.
SLOWER = (40, 100)


def measure() -> dict[str, object]:
    """Milliseconds for one second of speech: coding, sealing, both; best of five."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "image.rom"
        image.write_bytes(build.image(extra={"bench_speech.py": Path(__file__).with_name("on_badge.py")}))
        board = Board(folder)
        command = launcher.command(image, folder / "board.bin", folder / "flash.bin", port=0, module="bench_speech")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        board.close()
    rows = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("speech ")]
    if not rows:
        raise RuntimeError(f"the badge's benchmark printed nothing: {done.stdout[-300:]}{done.stderr[-300:]}")
    coded, sealed = (min(int(row[column]) for row in rows) / 1000 for column in (0, 1))
    share = (coded + sealed) / 10
    low, high = (round(share * factor, 1) for factor in SLOWER)
    return {
        "coding_ms": round(coded, 2),
        "sealing_ms": round(sealed, 2),
        "percent_of_a_second": round(share, 2),
        "machine_code": rows[0][2] == "1",
        "estimate": f"ESP32-S3 at 160 MHz: {low} to {high} % of a second, {SLOWER[0]} to {SLOWER[1]} times slower",
    }
