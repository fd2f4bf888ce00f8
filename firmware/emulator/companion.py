"""`tocsin-badge emulate`: one emulated badge with its panel, from options and a configuration file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import uvicorn

from firmware.emulator import build, microphone
from firmware.emulator.badge import BROKEN, Badge
from firmware.emulator.heap import LIMIT
from firmware.emulator.launcher import die_with_parent
from firmware.emulator.panel import Panel
from firmware.emulator.quiet import quieten

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
VOICE_NAME = "a voice"


class BadConfig(ValueError):
    """A setting that cannot be; the message says where and why."""


CARD_MAX = 60


@dataclass
class Config:
    """What `emulate` can be told, by option or in a TOML file under the same names."""

    name: str = "badge:demo"
    card: str = ""
    air: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    dir: str = ""
    microphone: str = ""
    sounds: tuple[str, ...] = ()
    battery: float = 100.0
    broken: tuple[str, ...] = ()
    heap: int = LIMIT // 1024
    module: str = "firmware.badge.main"

    def check(self) -> None:
        """Raises BadConfig."""
        if not NAME.fullmatch(self.name):
            raise BadConfig(f"name: {self.name!r} is not letters, digits and _.:- (at most 64)")
        if len(self.card) > CARD_MAX or not self.card.isprintable():
            raise BadConfig(f"card: {self.card!r} is not a name of at most {CARD_MAX} characters")
        if self.air:
            air_address(self.air)
        if not 0 <= self.port <= 65535:
            raise BadConfig(f"port: {self.port} is not between 0 and 65535")
        if not 0 <= self.battery <= 100:
            raise BadConfig(f"battery: {self.battery} is not between 0 and 100 percent")
        for part in self.broken:
            if part not in BROKEN:
                raise BadConfig(f"broken: {part!r} is none of {', '.join(BROKEN)}")
        if not 64 <= self.heap <= 16384:
            raise BadConfig(f"heap: {self.heap} is not between 64 and 16384 (KB)")


def air_address(text: str) -> tuple[str, int]:
    """HOST:PORT in two parts. Raises BadConfig."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadConfig(f"air: {text!r} is not HOST:PORT")
    return host, int(port)


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a TOML file. Raises BadConfig."""
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as problem:
        raise BadConfig(f"{path}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadConfig(f"{path}: {problem}") from None
    kinds = {field.name: field.default for field in fields(Config)}
    for key, value in found.items():
        if key not in kinds:
            raise BadConfig(f"{path}: unknown key {key!r}")
        wanted = kinds[key]
        if isinstance(wanted, tuple):
            good = isinstance(value, list) and all(isinstance(each, str) for each in value)
            found[key] = tuple(value) if good else ()
        elif isinstance(wanted, float | int):
            good = isinstance(value, int | float if isinstance(wanted, float) else int)
            good = good and not isinstance(value, bool)
        else:
            good = isinstance(value, str)
        if not good:
            raise BadConfig(f"{path}: {key}: {value!r} is not {_KINDS[type(wanted)]}")
        if key in ("dir", "microphone") and value:
            found[key] = str(path.parent / value)
        if key == "sounds":
            found[key] = tuple(str(path.parent / each) for each in value)
    return found


_KINDS = {str: "a text", int: "a whole number", float: "a number", tuple: "a list of texts"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tocsin-badge emulate`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the same names as these options")
    parser.add_argument("--name", help="what the badge is called on the air (default: badge:demo)")
    parser.add_argument("--card", metavar="NAME", help="the name on the panel's ID card (default: an invented one)")
    parser.add_argument("--air", metavar="HOST:PORT", help="a running tocsin-air (default: an air of its own)")
    parser.add_argument("--host", help="address of the panel (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port of the panel (default: any free one)")
    parser.add_argument("--dir", help="folder that keeps flash and retained memory (default: forgotten at the end)")
    parser.add_argument("--microphone", metavar="WAV", help="what the microphone hears, 16-bit PCM, looped")
    parser.add_argument("--sound", dest="sounds", action="append", metavar="WAV", help="another one to choose")
    parser.add_argument("--battery", type=float, metavar="PERCENT", help="charge of the cell (default: 100)")
    parser.add_argument(
        "--broken", action="append", metavar="PART", help=f"a part that does not work: {', '.join(BROKEN)}"
    )
    parser.add_argument(
        "--heap",
        type=int,
        metavar="KB",
        help=f"limit of the heap (default: {LIMIT // 1024}, which stand for half on a badge)",
    )
    parser.add_argument("--module", help=argparse.SUPPRESS)


def configure(args: argparse.Namespace) -> Config:
    """Options over file over defaults. Raises BadConfig."""
    settings = read_config(args.config) if args.config else {}
    for field in fields(Config):
        value = getattr(args, field.name, None)
        if value is not None:
            settings[field.name] = tuple(value) if isinstance(value, list) else value
    config = Config(**settings)
    config.check()
    return config


def _start_air() -> tuple[subprocess.Popen[bytes], tuple[str, int]]:
    """An air of our own, which dies with us."""
    air = subprocess.Popen(
        [sys.executable, "-m", "firmware.emulator.air.cli", "run"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=functools.partial(die_with_parent, os.getpid()),
    )
    assert air.stdout
    ready = json.loads(air.stdout.readline() or b"{}")
    if "port" not in ready:
        raise BadConfig("air: the air of its own did not start")
    return air, ("127.0.0.1", ready["port"])


def _sounds(config: Config) -> dict[str, bytes]:
    sounds = {}
    for each in (config.microphone, *config.sounds):
        if each:
            sounds[Path(each).name] = microphone.load(Path(each))
    sounds[VOICE_NAME] = microphone.load(microphone.VOICE)
    return sounds


async def _serve(config: Config, air: tuple[str, int], sounds: dict[str, bytes], folder: Path) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        listener = socket.create_server((config.host, config.port))
    except OSError as problem:
        raise BadConfig(f"port: cannot listen on {config.host} port {config.port}: {problem}") from None
    badge = Badge(
        config.name,
        air,
        folder,
        next(iter(sounds.values())),
        module=config.module,
        heap=config.heap * 1024,
        broken=config.broken,
    )
    badge.set_battery(config.battery)
    panel = Panel(badge, sounds, config.card)
    server = uvicorn.Server(uvicorn.Config(panel.app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]  # ours are above
    try:
        await badge.start()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ready = {
            "ready": True,
            "name": config.name,
            "port": listener.getsockname()[1],
            "serial": badge.plug_in(),
            "air": f"{air[0]}:{air[1]}",
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
        await stop.wait()
        badge.bus.close()
        server.should_exit = True
        await serving
    finally:
        await badge.close()
    return 0


def run(args: argparse.Namespace) -> int:
    """Run a badge until SIGTERM or Ctrl-C. Exit status: 0 stopped when asked, 2 cannot start."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    quieten()
    own_air = None
    try:
        with contextlib.ExitStack() as stack:
            config = configure(args)
            sounds = _sounds(config)
            if config.dir:
                folder = Path(config.dir)
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as problem:
                    raise BadConfig(f"dir: {folder}: {problem.strerror}") from None
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tocsin-badge-")))
            if config.air:
                air = air_address(config.air)
            else:
                own_air, air = _start_air()
            return asyncio.run(_serve(config, air, sounds, folder))
    except (BadConfig, microphone.BadSound, build.BuildError) as problem:
        print(f"tocsin-badge emulate: {problem}", file=sys.stderr)
        return 2
    finally:
        if own_air:
            own_air.terminate()
            own_air.wait()
