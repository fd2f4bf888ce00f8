"""The guest's kernel and file system, made from packages that are installed here: Debian's kernel, dbus and BlueZ.

Made once into build/bluez, under a name that changes with what it is made of; 17 MB. Needs no root and no network.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
GUEST = HERE / "guest"
CACHE = HERE.parents[1] / "build" / "bluez"
INSTALL = "apt install qemu-system-x86 linux-image-amd64 bluez busybox-static dbus gcc libc6-dev"
MODULES = [
    *("virtio_pci", "virtio_net"),
    # Linux pairs with AES-CMAC and a random number generator that is itself made of these; without them Pair()
    # answers success and has not paired. Not jitterentropy: without a real processor's jitter it takes many seconds,
    # in which the kernel gives up ECDH; what qemu's RDRAND gives is good enough here
    *("hmac", "sha256_generic", "sha512_generic", "ctr", "drbg", "cmac", "ecb", "algif_hash", "algif_skcipher"),
    *("hci_vhci", "uhid"),  # after the others: ECDH tests itself when it is loaded, and needs random numbers for it
]
FOLDERS = "bin proc sys dev run/dbus tmp modules etc etc/bluetooth var/lib/bluetooth usr/share root"


class Missing(Exception):
    """This machine has not what the guest is made of; the text says what and how to install it."""


@dataclass(frozen=True)
class Parts:
    """What the guest is made of."""

    kernel: Path
    modules: tuple[Path, ...]
    bluetoothd: Path
    dbus: Path
    busybox: Path
    gcc: Path
    qemu: Path

    @property
    def key(self) -> str:
        """Changes with every part and with the guest's own files."""
        digest = hashlib.sha256()
        for path in (self.kernel, *self.modules, self.bluetoothd, self.dbus, self.busybox, self.gcc):
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
        for path in (Path(__file__), *sorted(GUEST.iterdir())):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Image:
    """Ready to be booted by `qemu`."""

    kernel: Path
    initramfs: Path
    qemu: Path


def find() -> Parts:
    """The parts on this machine. Raises Missing."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        raise Missing("the guest is built on x86-64 Linux only")
    kernel, modules = _kernel()
    return Parts(
        kernel,
        modules,
        _program("/usr/libexec/bluetooth/bluetoothd", "/usr/lib/bluetooth/bluetoothd"),
        _program("dbus-daemon"),
        _static(_program("busybox")),
        _program("gcc"),
        _program("qemu-system-x86_64"),
    )


def _program(*names: str) -> Path:
    for name in names:
        if found := shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin"):
            return Path(found).resolve()
    raise Missing(f"{Path(names[0]).name} is not installed: {INSTALL}")


def _static(busybox: Path) -> Path:
    if _libraries(busybox):
        raise Missing(f"{busybox} needs libraries: {INSTALL}")
    return busybox


def _kernel() -> tuple[Path, tuple[Path, ...]]:
    """The newest kernel with virtual adapters (cloud kernels have none) and the modules for them, in order."""
    numbers = re.compile(r"\d+")
    found = sorted(Path("/lib/modules").glob("*"), key=lambda p: [int(n) for n in numbers.findall(p.name)])
    for folder in reversed(found):
        kernel = Path("/boot") / f"vmlinuz-{folder.name}"
        try:
            with kernel.open("rb"):
                return kernel, _modules(folder)
        except (OSError, KeyError):
            continue
    raise Missing(f"no readable kernel with hci_vhci in /boot: {INSTALL}")


def _modules(folder: Path) -> tuple[Path, ...]:
    """Files of MODULES and of all that they need, each after what it needs. Raises KeyError for a missing one."""
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        needs[_plain(file)] = (file, [_plain(other) for other in others.split()])
    built_in = {_plain(line) for line in (folder / "modules.builtin").read_text().splitlines()}
    order: list[str] = []

    def add(name: str) -> None:
        if name in built_in or name in order:
            return
        for other in needs[name][1]:
            add(other)
        order.append(name)

    for name in MODULES:
        add(name)
    return tuple(folder / needs[name][0] for name in order)


def _plain(file: str) -> str:
    return Path(file).name.partition(".ko")[0].replace("-", "_")


def _libraries(program: Path) -> list[Path]:
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", listed)]


def build(parts: Parts) -> Image:
    """The image, made anew only when a part has changed. Raises Missing, subprocess.CalledProcessError."""
    folder = CACHE / parts.key
    image = Image(folder / "vmlinuz", folder / "initramfs.gz", parts.qemu)
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.iterdir():
            shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            _fill(Path(made) / "root", parts)
            whole = Path(made) / "whole"
            whole.mkdir()
            shutil.copyfile(parts.kernel, whole / "vmlinuz")
            (whole / "initramfs.gz").write_bytes(_archive(Path(made) / "root", parts.busybox))
            whole.rename(folder)
    return image


def _fill(root: Path, parts: Parts) -> None:
    for name in FOLDERS.split():
        (root / name).mkdir(parents=True, exist_ok=True)
    for program in (parts.bluetoothd, parts.dbus, parts.busybox):
        shutil.copy(program, root / "bin" / program.name)
        for library in _libraries(program):
            target = root / library.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    subprocess.run([parts.gcc, "-static", "-O2", "-Wall", "-o", root / "bin/pump", GUEST / "pump.c"], check=True)
    for number, module in enumerate(parts.modules):
        (root / "modules" / f"{number:02}-{_plain(module.name)}.ko").write_bytes(_unpacked(module))
    shutil.copy(GUEST / "bus.conf", root / "etc/bus.conf")
    shutil.copy(GUEST / "main.conf", root / "etc/bluetooth/main.conf")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nmessagebus:x:100:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    shutil.copy(GUEST / "init", root / "init")
    (root / "init").chmod(0o755)


def _unpacked(module: Path) -> bytes:
    data = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(data)
    if module.suffix == ".gz":
        return gzip.decompress(data)
    if module.suffix == ".zst":
        if shutil.which("zstd") is None:
            raise Missing("this kernel's modules are packed: apt install zstd")
        return subprocess.run(["zstd", "-dcq", module], check=True, capture_output=True).stdout
    return data


def _archive(root: Path, busybox: Path) -> bytes:
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    done = subprocess.run(
        [busybox, "cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(), capture_output=True, check=True
    )
    return gzip.compress(done.stdout, compresslevel=1, mtime=0)
