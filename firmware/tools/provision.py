"""`tocsin-badge provision`: gives a badge its identity.

The badge's root key is made here, once, and goes to the station (over HTTPS) and to the badge (over the serial cable,
or to an emulated badge's panel) and nowhere else: it is neither printed nor kept. The station answers with the badge's
number and the council's group key.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.keys import BadgeKeys

ANSWER_S = 20.0
# a badge that has taken its keys starts again before it says anything else
SERIAL_S = 10.0
BAUD = 115_200


class ProvisionError(Exception):
    """The badge could not be provisioned; the text says why and what to do."""


@dataclass(frozen=True)
class Record:
    """What a badge is given. Secret but for `badge`; `line` is what its serial console takes."""

    badge: int
    root: bytes
    group_key: bytes
    settings: dict[str, Any]

    @property
    def passkey(self) -> int:
        """The number on the wearer's card with which a hub may pair, 0..999999."""
        return BadgeKeys(self.root).passkey()

    def as_json(self) -> dict[str, Any]:
        """What `provision` on the badge's console takes."""
        keys = {"badge": self.badge, "root": self.root.hex(), "group_key": self.group_key.hex()}
        return {**keys, "settings": self.settings}

    def line(self) -> str:
        """The line for the badge's serial console."""
        return "provision " + json.dumps(self.as_json(), separators=(",", ":"))


def _post(url: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        try:
            why = str(json.load(error)["error"])
        except (ValueError, KeyError, TypeError):
            why = f"status {error.code}"
        raise ProvisionError(f"{url}: {why}") from None
    except (OSError, ValueError) as error:
        raise ProvisionError(f"{url}: no answer ({getattr(error, 'reason', error)})") from None
    if not isinstance(answer, dict):
        raise ProvisionError(f"{url}: this is not a Tocsin station or badge")
    return answer


def register(
    station: str, token: str, wearer: str, settings: dict[str, Any] | None = None, badge: int | None = None
) -> Record:
    """Makes a root key and registers a badge with it at the station `station` (URL). Raises ProvisionError.

    With `badge`, an existing badge is given new keys, and its old ones are worth nothing any more.
    """
    root = secrets.token_bytes(32)
    body: dict[str, Any] = {"wearer": wearer, "root": root.hex(), "settings": settings or {}}
    if badge is not None:
        body["badge"] = badge
    answer = _post(station.rstrip("/") + "/api/badges", body, token)
    try:
        return Record(int(answer["badge"]), root, bytes.fromhex(answer["group_key"]["key"]), settings or {})
    except (KeyError, TypeError, ValueError):
        raise ProvisionError(f"{station}: the answer is not that of a Tocsin station") from None


def to_panel(record: Record, panel: str) -> None:
    """Hands the keys to the emulated badge whose panel is at `panel` (URL). Raises ProvisionError."""
    _post(panel.rstrip("/") + "/provision", record.as_json())


def to_serial(record: Record, port: str) -> None:
    """Hands the keys to the badge on a serial port and waits for its word. Raises ProvisionError."""
    import serial

    try:
        with serial.Serial(port, BAUD, timeout=0.2) as cable:
            cable.reset_input_buffer()
            cable.write(b"\n" + record.line().encode() + b"\n")
            heard = ""
            end = time.monotonic() + SERIAL_S
            while time.monotonic() < end:
                heard += cable.read(256).decode("utf-8", "replace")
                if f"@provisioned badge={record.badge}" in heard:
                    return
                if "@refused" in heard:
                    why = heard.split("@refused why=", 1)[-1].split("\n")[0].strip().replace("_", " ")
                    raise ProvisionError(f"{port}: the badge refuses: {why}")
    except (OSError, serial.SerialException) as error:
        raise ProvisionError(f"{port}: {error}") from None
    raise ProvisionError(f"{port}: the badge does not answer; is another program on the port?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tocsin-badge provision`."""
    parser.add_argument(
        "--station", required=True, metavar="URL", help="the station, for example https://station.example"
    )
    parser.add_argument("--token-file", metavar="FILE", help="file with the station's api_token (default: asked for)")
    parser.add_argument("--wearer", required=True, metavar="NAME", help="who wears the badge")
    parser.add_argument("--badge", type=int, metavar="NUMBER", help="give this badge new keys and revoke the old")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as hold_to_sos=2")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--serial", metavar="PORT", help="the badge's serial port, for example /dev/ttyACM0")
    target.add_argument("--panel", metavar="URL", help="the panel of an emulated badge")


def _settings(pairs: list[str]) -> dict[str, Any]:
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            settings[name] = json.loads(text)
        except ValueError:
            equals = ""
        if not equals:
            raise ProvisionError(f"--set {pair}: write NAME=VALUE, with a number, true or false")
    return settings


def _token(file: str | None) -> str:
    if file is None:
        import getpass

        return getpass.getpass("api_token of the station: ")
    try:
        return Path(file).read_text(encoding="utf-8").split("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ProvisionError(f"--token-file {file}: {error}") from None


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 1 the station or the badge did not take it, 2 a wrong option."""
    try:
        settings, token = _settings(args.set), _token(args.token_file)
    except ProvisionError as error:
        print(f"tocsin-badge provision: {error}", file=sys.stderr)
        return 2
    try:
        record = register(args.station, token, args.wearer, settings, args.badge)
        if args.panel:
            to_panel(record, args.panel)
        else:
            to_serial(record, args.serial)
    except ProvisionError as error:
        print(f"tocsin-badge provision: {error}", file=sys.stderr)
        return 1
    print(f"badge {record.badge} is provisioned for {args.wearer}; on its card: {record.passkey:06}")
    return 0
