"""`tocsin-station`: run the station, run a broker, make operators, check a configuration."""

import argparse
import getpass
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from station import broker, config
from station.errors import CannotRun
from station.parent import die_if_asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status: 0 stopped cleanly, 1 could not run, 2 wrong configuration or command line."""
    die_if_asked()
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        status: int = options.command(options)
        return status
    except config.ConfigError as error:
        print(f"tocsin-station: {error}", file=sys.stderr)
        return 2
    except CannotRun as error:
        print(f"tocsin-station: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tocsin-station", description="Monitoring station of Tocsin.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--log", default="warning", choices=("debug", "info", "warning", "error"), help="what goes to stderr"
    )
    located = argparse.ArgumentParser(add_help=False)
    located.add_argument("--config", type=Path, metavar="FILE", help="TOML file; every key has a default")
    located.add_argument("--dir", type=Path, metavar="DIR", help="database and key file (default var/station)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common, located], help="ingest, console and interfaces")
    run.add_argument("--port", type=_port, help="of the console (0: any free one; default 8080)")
    run.add_argument("--worker", type=int, metavar="N", help="which of several workers on one database this is")
    run.set_defaults(command=_run)

    serve = commands.add_parser("broker", parents=[common], help="an MQTT broker on the loopback")
    serve.add_argument("--port", type=_port, default=1883, help="0: any free one (default 1883)")
    serve.add_argument(
        "--kind", choices=config.BROKER_KINDS, default="auto", help="auto: mosquitto if installed, else amqtt"
    )
    serve.set_defaults(command=_broker)

    user = commands.add_parser("user", help="operators' accounts").add_subparsers(required=True, metavar="COMMAND")
    add = user.add_parser("add", parents=[common, located], help="make an operator, or change the password")
    add.add_argument("name")
    add.set_defaults(command=_user_add)

    check = commands.add_parser("config", help="the configuration file").add_subparsers(
        required=True, metavar="COMMAND"
    )
    verify = check.add_parser("check", parents=[common], help="read a file and say what is wrong with it")
    verify.add_argument("file", type=Path)
    verify.set_defaults(command=_config_check)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is 0..65535, not {text!r}")
    return int(text)


def _load(options: argparse.Namespace) -> config.Config:
    loaded = config.load(options.config) if options.config is not None else config.Config()
    if options.dir is not None:
        loaded.station.dir = options.dir
    return loaded


def _run(options: argparse.Namespace) -> int:
    # a broker or a check needs none of it, and it takes a second to import
    from station.serve import serve

    loaded = _load(options)
    if options.port is not None:
        loaded.station.port = options.port
    if options.worker is not None:
        loaded.station.worker = options.worker
        config.check(loaded)
    serve(loaded)
    return 0


def _broker(options: argparse.Namespace) -> int:
    def ready(kind: str, port: int) -> None:
        line = {"ready": True, "part": "broker", "port": port, "kind": kind, "pid": os.getpid()}
        print(json.dumps(line), flush=True)

    return broker.serve(options.kind, options.port, ready)


def _user_add(options: argparse.Namespace) -> int:
    from station import accounts
    from station.run import Station

    loaded = _load(options)
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password for {options.name}: ")
        if getpass.getpass("Once more: ") != password:
            raise accounts.AccountError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    station = Station(loaded)
    try:
        accounts.put(station.core, options.name, password, "command line")
    finally:
        station.core.store.close()
    return 0


def _config_check(options: argparse.Namespace) -> int:
    config.load(options.file)
    print(f"{options.file}: good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
