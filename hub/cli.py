"""tocsin-hub: run the hub, ask a running one how it is, look after its configuration and its certificates."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import os
import re
import signal
import sys
from pathlib import Path

from hub import config, control, doctor, enrolment, ready_check, tls_commands
from hub.app import Hub
from hub.identity import IdentityError
from hub.recovery import HAND_OVER_STATUS, HandOver

PR_SET_PDEATHSIG = 1
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def main(argv: list[str] | None = None) -> int:
    """The command. Exit status: 0 as asked, 1 could not run, 2 the configuration or the command line is wrong,
    75 the radio can only be helped by starting the hub again (docs/bluetooth.md).
    """
    parser = argparse.ArgumentParser(
        prog="tocsin-hub", description="Carries what badges say to the monitoring station, and its answers back."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the hub until SIGTERM or Ctrl-C")
    status = commands.add_parser("status", help="print how the running hub is, as JSON")
    check = commands.add_parser("config", help="look at the configuration").add_subparsers(dest="what", required=True)
    for command in (run, status):
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (TOML)")
    checker = check.add_parser("check", help="say whether a configuration is valid")
    checker.add_argument("config", type=Path, metavar="FILE")
    check.add_parser("keys", help="list every key with its default and meaning")
    check.add_parser("schema", help="print the JSON Schema of the configuration")
    tls_commands.add_commands(commands)
    doctor.add_command(commands)
    ready_check.add_command(commands)
    enrolment.add_command(commands)
    args = parser.parse_args(argv)
    if args.command == "config" and args.what == "keys":
        print(config.table())
        return 0
    if args.command == "config" and args.what == "schema":
        print(json.dumps(config.schema(), indent=2))
        return 0
    if args.command == "ca":
        return tls_commands.run_ca(args)
    try:
        settings = config.load(args.config)
    except config.ConfigError as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return 2
    if args.command == "config":
        print(f"{args.config}: valid")
        return 0
    if args.command == "identity":
        return tls_commands.run_identity(settings, args)
    if args.command == "doctor":
        return doctor.run(settings, args)
    if args.command == "ready":
        return ready_check.run(settings, args)
    if args.command == "enrol":
        return enrolment.run_command(settings.dir, args)
    if args.command == "status":
        return _status(settings)
    return _run(settings)


def _status(settings: config.Config) -> int:
    try:
        print(json.dumps(control.ask(settings.dir / "hub.sock"), indent=2))
    except control.NoHub as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return 1
    return 0


def _run(settings: config.Config) -> int:
    _log(settings.log_level)
    if os.environ.get("TOCSIN_PARENT_DEATH"):
        _die_with_parent()
    os.umask(0o077)
    try:
        lock = _alone(settings.dir)
    except OSError as problem:
        print(f"tocsin-hub: {settings.dir}: {problem.strerror or problem}", file=sys.stderr)
        return 1
    try:
        return asyncio.run(_main(settings))
    except IdentityError as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return 1
    except HandOver as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return HAND_OVER_STATUS
    finally:
        os.close(lock)


async def _main(settings: config.Config) -> int:
    hub = Hub(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready() -> None:
        line = {
            "ready": True,
            "part": "hub",
            "hub_id": hub.identity.hub_id.hex(),
            "key": hub.identity.public.hex(),
            "pid": os.getpid(),
        }
        print(json.dumps(line), flush=True)

    work = asyncio.create_task(hub.run(ready))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
        return 1
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return 0


def _alone(folder: Path) -> int:
    """Hold the folder for this process: two hubs with one identity would throw each other off the broker.

    The lock goes with the process, however it ends. Raises OSError when another hub has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        import fcntl  # there is none on Windows
    except ImportError:
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(lock)
        raise OSError(problem.errno, "another hub runs in this folder") from problem
    return lock


def _die_with_parent() -> None:
    """A drill that is killed leaves no hub behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class _Foreign(logging.Filter):
    """What libraries report becomes one line of ours, at most a warning: whoever reads it cannot mend them.

    asyncio reports what our own code did wrong, and stays an error, but for what Bumble throws at it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        culprit = type(record.exc_info[1]).__module__ if record.exc_info else ""
        if record.name == "asyncio" and not culprit.startswith("bumble"):
            return True
        if record.levelno > logging.WARNING:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        problem = record.exc_info[1] if record.exc_info else None
        text = " ".join(_COLOUR.sub("", record.getMessage()).split())
        record.msg = f"{text}: {type(problem).__name__}: {problem}" if problem else text
        record.args, record.exc_info, record.exc_text = (), None, None
        return True


def _log(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    foreign = logging.StreamHandler(sys.stderr)
    foreign.setFormatter(handler.formatter)
    foreign.addFilter(_Foreign())
    logging.raiseExceptions = False  # a full disk under the log must not stop the hub
    root = logging.getLogger()
    root.addHandler(foreign)
    root.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    own = logging.getLogger("hub")
    own.addHandler(handler)
    own.propagate = False
    own.setLevel(level.upper())


if __name__ == "__main__":
    sys.exit(main())
