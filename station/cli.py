"""`tocsin-station`: run the station, run a broker, make operators, check a configuration."""

import argparse
import asyncio
import contextlib
import getpass
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn

from station import accounts, broker, config
from station.console import app as console
from station.parent import die_if_asked
from station.run import Station, StationError
from station.store import StoreError
from station.vault import VaultError

SHUTDOWN_S = 1  # until open connections are cut when the station stops


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
    except (StationError, StoreError, VaultError, broker.BrokerError, accounts.AccountError) as error:
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


# --- run --------------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """Signals are ours: streams must be ended before the server waits for them."""

    def __init__(self, settings: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(settings)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so when requests are taken."""
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def _run(options: argparse.Namespace) -> int:
    loaded = _load(options)
    if options.port is not None:
        loaded.station.port = options.port
    listening = _listen(loaded.station.host, loaded.station.port)
    station = Station(loaded)
    try:
        station.start()
        asyncio.run(_serve(station, listening))
    finally:
        station.stop()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        raise StationError(
            f"[station] port: cannot listen on {host}:{port} ({error}); give another port, or 0 for a free one"
        ) from error
    return listening


async def _serve(station: Station, listening: socket.socket) -> None:
    app = console.build(station)
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
    server = _Server(settings, lambda: _say(station.ready_line(listening.getsockname()[1])))

    def stop() -> None:
        app.state.broadcast.end()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await server.serve(sockets=[listening])


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


# --- the others -------------------------------------------------------------------------------------------------


def _broker(options: argparse.Namespace) -> int:
    def ready(kind: str, port: int) -> None:
        _say({"ready": True, "part": "broker", "port": port, "kind": kind, "pid": os.getpid()})

    return broker.serve(options.kind, options.port, ready)


def _user_add(options: argparse.Namespace) -> int:
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
