"""Certificates for the broker: `tocsin-hub ca` on the technician's own machine, `tocsin-hub identity` on the hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hub import certificates
from hub.certificates import CertificateError
from hub.config import Config
from hub.identity import Identity, IdentityError


def add_commands(commands: Any) -> None:
    """Put both into a command line."""
    ca = commands.add_parser("ca", help="the authority for certificates, on the technician's own machine")
    ca_what = ca.add_subparsers(dest="what", required=True)
    for name, text in (
        ("init", "make the authority; its folder is to be kept safe and backed up"),
        ("broker", "make the broker's key and certificate"),
        ("station", "make the station's key and certificate"),
        ("sign", "sign a hub's request, new or to renew"),
        ("revoke", "a hub was stolen: put its certificate on the list that the broker reads"),
    ):
        command = ca_what.add_parser(name, help=text)
        command.add_argument("folder", type=Path, metavar="FOLDER", help="the authority's folder")
        if name == "broker":
            command.add_argument(
                "--host", action="append", required=True, metavar="NAME", help="name or address of the broker, each"
            )
        if name in ("sign", "revoke"):
            command.add_argument("file", type=Path, metavar="FILE", help="the request" if name == "sign" else "it")
        if name == "sign":
            command.add_argument("-o", "--output", type=Path, metavar="FILE", help="else standard output")
            command.add_argument("--days", type=int, default=certificates.HUB_DAYS, help="how long it is valid")
    identity = commands.add_parser("identity", help="this hub's certificate for the broker")
    identity_what = identity.add_subparsers(dest="what", required=True)
    for name, text in (
        ("show", "who this hub is, and how long its certificate is valid"),
        ("request", "print a request for a certificate, to be signed by the authority"),
        ("install", "take the signed certificate into use; the running hub uses it at its next connection"),
    ):
        command = identity_what.add_parser(name, help=text)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (TOML)")
        if name == "install":
            command.add_argument("file", type=Path, metavar="FILE", help="the certificate")


def run_ca(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 1 it could not be done."""
    try:
        print(_ca(args), end="")
    except CertificateError as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"tocsin-hub: {problem.filename}: {problem.strerror}", file=sys.stderr)
        return 1
    return 0


def _ca(args: argparse.Namespace) -> str:
    folder: Path = args.folder
    if args.what == "init":
        certificates.make_authority(folder)
        return (
            f"{folder / certificates.CA_CERT}: for broker, station and hubs; {folder / certificates.CA_KEY}: secret\n"
        )
    if args.what in ("broker", "station"):
        key, certificate = certificates.make_pair(folder, args.what, args.host if args.what == "broker" else [])
        return f"{certificate}\n{key}: secret\n"
    if args.what == "revoke":
        name = certificates.revoke(folder, args.file.read_bytes())
        return f"{name} is revoked: bring {folder / certificates.CRL} to the broker and start it again\n"
    signed = certificates.sign_hub(folder, args.file.read_bytes(), args.days)
    if args.output is None:
        return signed.decode()
    args.output.write_bytes(signed)
    return f"{args.output}\n"


def run_identity(settings: Config, args: argparse.Namespace) -> int:
    """Exit status: 0 done, 1 it could not be done, or `show` found something wrong."""
    try:
        hub_id = Identity.load(settings.dir).hub_id
        if args.what == "request":
            print(certificates.request(settings.mqtt_key, hub_id).decode(), end="")
        elif args.what == "install":
            certificates.install(args.file.read_bytes(), settings.mqtt_cert, settings.mqtt_key, hub_id)
            print(f"{settings.mqtt_cert}: installed")
        else:
            return _show(settings, hub_id)
    except (IdentityError, CertificateError) as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"tocsin-hub: {problem.filename}: {problem.strerror}", file=sys.stderr)
        return 1
    return 0


def _show(settings: Config, hub_id: bytes) -> int:
    print(f"hub {hub_id.hex()}")
    if not settings.mqtt_cert.exists():
        print(f"no certificate at {settings.mqtt_cert}: make one with tocsin-hub identity request")
        return 1 if settings.mqtt_ca else 0
    found = certificates.load(settings.mqtt_cert.read_bytes())
    problem = certificates.problem_of(found, settings.mqtt_key, hub_id)
    print(problem or f"certificate good for another {certificates.days_left(found):.0f} days")
    return 1 if problem else 0
