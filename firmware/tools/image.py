"""`tocsin-badge image`: makes the key that signs updates, makes and signs an update, says what is in one.

The private key stays with whoever makes releases. Its public half goes into firmware/badge/update_key.py and with that
into every badge that is built from then on. What an update says of itself is read from the finished firmware: it cannot
differ from what runs.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from protocol import p256
from protocol.image import HEAD, SIGNATURE, SIGNED, TRIAL_LEAST, TRIAL_MOST, BadImage, Head, unpack

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ROOT / "firmware" / "badge" / "update_key.py"
MARK = re.compile(rb"tocsin-release (\d{1,9}) ([A-Za-z0-9._+-]{1,24}) ;")
TRIAL_S = 600  # a technician beside a hub needs one; a badge that nobody looks after is back before its wearer leaves
EMULATOR = "emulator"
# chip in the header of an ESP-IDF application image (esp_chip_id_t)
CHIPS = {"badge_s3": 9, "xiao_esp32s3": 9, "xiao_esp32c6": 13}
_APP_DESCRIPTION = (0xABCD5432).to_bytes(4, "little")
_LINE = 64


class ImageError(Exception):
    """No update can be made of it; the text says why and what to do."""


@dataclass(frozen=True)
class Release:
    """What a firmware says of itself."""

    number: int
    version: str


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as a badge has it, p256.LENGTH bytes. Raises ImageError for another curve."""
    if not isinstance(key.curve, ec.SECP256R1):
        raise ImageError("the key is not on the curve P-256: make one with tocsin-badge image key")
    form = serialization.PublicFormat.UncompressedPoint
    return key.public_bytes(serialization.Encoding.X962, form)[1:]


def public_module(key: ec.EllipticCurvePublicKey) -> str:
    """The text of firmware/badge/update_key.py with this key."""
    text = public_bytes(key).hex()
    lines = [f'    "{text[at : at + _LINE]}"' for at in range(0, len(text), _LINE)]
    return (
        '"""The key whose signature this badge asks of an update; none: it takes no updates over the cable.\n\n'
        'Public. `tocsin-badge image key` writes this file; docs/developer.md says when.\n"""\n\n'
        "PUBLIC = (\n" + "\n".join(lines) + "\n)\n"
    )


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM file. Raises ImageError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ImageError(f"{path}: this is no private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ImageError(f"{path}: this is no key on an elliptic curve")
    public_bytes(key.public_key())
    return key


def sign(head: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The signature of a head, and zeros up to the firmware."""
    r, s = decode_dss_signature(key.sign(head, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes(HEAD - SIGNATURE)


def release_of(firmware: bytes) -> Release:
    """Which release a finished firmware is. Raises ImageError."""
    found = set(MARK.findall(firmware))
    if len(found) != 1:
        raise ImageError("this is no firmware of a badge: it does not hold firmware/badge/release.py")
    number, version = found.pop()
    return Release(int(number), version.decode())


def check_firmware(board: str, firmware: bytes) -> None:
    """Whether it is what the slot of such a board takes. Raises ImageError."""
    if board == EMULATOR:
        return
    if board not in CHIPS:
        raise ImageError(f"--board {board}: known are {', '.join([EMULATOR, *CHIPS])}")
    if firmware[:1] != b"\xe9" or firmware[32:36] != _APP_DESCRIPTION:
        raise ImageError("this is no application of ESP-IDF: take micropython.bin, not firmware.bin, of the build")
    chip = int.from_bytes(firmware[12:14], "little")
    if chip != CHIPS[board]:
        raise ImageError(
            f"this firmware is for the chip {chip}, and {board} has {CHIPS[board]}: build it for that board"
        )


def make(
    board: str, firmware: bytes, key: ec.EllipticCurvePrivateKey, *, trial: int = TRIAL_S, other_key: bool = False
) -> bytes:
    """A signed update. `other_key`: the firmware trusts another key from then on. Raises ImageError."""
    check_firmware(board, firmware)
    release = release_of(firmware)
    if not other_key and public_bytes(key.public_key()).hex().encode() not in firmware:
        raise ImageError(
            "the firmware does not trust this key, and could not be updated with it again: run tocsin-badge image key"
            " and build anew, or say --other-key when it is to trust another"
        )
    try:
        head = Head(
            board, release.version, release.number, len(firmware), trial, hashlib.sha256(firmware).digest()
        ).pack()
    except BadImage as error:
        raise ImageError(str(error)) from None
    return head + sign(head, key) + firmware


def emulator_firmware(
    version: str | None = None, release: int | None = None, key: ec.EllipticCurvePublicKey | None = None
) -> bytes:
    """The emulated badge's firmware from this checkout; as another release, with another update key, where given.

    Raises firmware.emulator.build.BuildError.
    """
    from firmware.emulator import build

    source = ROOT / "firmware" / "badge" / "release.py"
    text = source.read_text(encoding="utf-8")
    known = release_of(text.encode())
    mark = f"tocsin-release {known.number if release is None else release} {version or known.version} ;"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "release.py").write_text(MARK.sub(mark.encode(), text.encode()).decode(), encoding="utf-8")
        extra = {"firmware/badge/release.py": folder / "release.py"}
        if key is not None:
            (folder / "update_key.py").write_text(public_module(key), encoding="utf-8")
            extra["firmware/badge/update_key.py"] = folder / "update_key.py"
        return build.image(extra=extra)


def read_update(path: Path) -> tuple[Head, bytes]:
    """An update file and its head. Raises ImageError; the signature is for the badge to check."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    try:
        head = unpack(data)
    except BadImage as error:
        raise ImageError(f"{path}: {error}") from None
    if len(data) != HEAD + head.length or hashlib.sha256(data[HEAD:]).digest() != head.digest:
        raise ImageError(f"{path}: the file is damaged or cut off, copy it again")
    return head, data


def signed_by(data: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    """Whether an update's signature is of this key."""
    return p256.verify(public_bytes(key), hashlib.sha256(data[:SIGNED]).digest(), data[SIGNED:SIGNATURE])


# --- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tocsin-badge image`."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    key = parts.add_parser("key", help="make the key that signs updates")
    key.add_argument(
        "key", type=Path, metavar="KEY.pem", help="where the private key goes; keep it, and keep it secret"
    )
    key.add_argument(
        "--public", type=Path, default=PUBLIC, metavar="FILE", help="the module that badges are built with"
    )
    key.add_argument("--again", action="store_true", help="KEY.pem exists: write only its public half")
    made = parts.add_parser("make", help="make an update and sign it")
    made.add_argument("--board", required=True, metavar="NAME", help="a board of firmware/boards, or emulator")
    made.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="the private key")
    made.add_argument(
        "--firmware", type=Path, metavar="FILE", help="micropython.bin of the build (emulator: this checkout)"
    )
    made.add_argument("--version", metavar="X", help="only for the emulator: call this checkout so")
    made.add_argument("--release", type=int, metavar="N", help="only for the emulator: number it so")
    made.add_argument(
        "--trial",
        type=int,
        default=TRIAL_S,
        metavar="SECONDS",
        help=f"in which it must reach a hub, {TRIAL_LEAST} to {TRIAL_MOST} (default: {TRIAL_S})",
    )
    made.add_argument("--other-key", action="store_true", help="the firmware trusts another key from then on")
    made.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: tocsin-BOARD-VERSION.tbu")
    shown = parts.add_parser("show", help="say what is in an update")
    shown.add_argument("file", type=Path, metavar="FILE")
    shown.add_argument("--key", type=Path, metavar="KEY.pem", help="and whether it was signed with this key")


def _key(args: argparse.Namespace) -> str:
    if args.again:
        key = load_key(args.key)
    else:
        if args.key.exists():
            raise ImageError(f"{args.key} exists: another key shuts out every badge that trusts it; --again to go on")
        key = new_key()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        args.key.touch(mode=0o600)
        args.key.write_bytes(pem)
    args.public.write_text(public_module(key.public_key()), encoding="utf-8")
    return f"{args.key} is secret; its public half is in {args.public}: build badges from now on with it"


def _make(args: argparse.Namespace) -> str:
    key = load_key(args.key)
    if args.firmware is not None:
        if args.version is not None or args.release is not None:
            raise ImageError(
                "--version, --release: firmware says itself what it is; edit firmware/badge/release.py, build"
            )
        firmware = args.firmware.read_bytes()
    elif args.board == EMULATOR:
        firmware = emulator_firmware(args.version, args.release, None if args.other_key else key.public_key())
    else:
        raise ImageError(
            f"--board {args.board}: say with --firmware which micropython.bin; docs/developer.md has the build"
        )
    data = make(args.board, firmware, key, trial=args.trial, other_key=args.other_key)
    head = unpack(data)
    output = args.output or Path(f"tocsin-{args.board}-{head.version}.tbu")
    output.write_bytes(data)
    return f"{output}: {describe(head)}"


def describe(head: Head) -> str:
    """One line of what an update is."""
    return (
        f"version {head.version} (release {head.release}) for {head.board}, {head.length} bytes, "
        f"{head.trial} s to reach a hub"
    )


def _show(args: argparse.Namespace) -> str:
    head, data = read_update(args.file)
    line = f"{args.file}: {describe(head)}"
    if args.key is not None:
        if not signed_by(data, load_key(args.key).public_key()):
            raise ImageError(f"{line}; NOT signed with {args.key}")
        line += f"; signed with {args.key}"
    return line


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 2 it cannot be (one line on stderr says why)."""
    from firmware.emulator.build import BuildError

    try:
        print({"key": _key, "make": _make, "show": _show}[args.part](args))
    except (ImageError, BuildError, OSError) as error:
        print(f"tocsin-badge image: {error}", file=sys.stderr)
        return 2
    return 0
