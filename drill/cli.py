"""Rehearse the whole chain from a file, show it, or try it hard."""

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from drill.processes import DidNotStart
from drill.report import DID_NOT_RUN, WRONG_FILE, Report
from drill.validate import ScenarioError

INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_FILE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """The command. Exit status: 0 all held, 1 something failed, 2 the file is wrong, 3 a part did not start."""
    parser = _Parser(prog="tocsin-drill", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    run = commands.add_parser("run", help="play a drill and write what happened")
    run.add_argument("file", type=Path, metavar="FILE.toml")
    run.add_argument("--json", type=Path, metavar="REPORT", help="write the report here instead of standard output")
    run.add_argument("--keep", type=Path, metavar="DIR", help="keep sound and logs here (default: REPORT.d)")
    run.add_argument("--seed", type=int, metavar="N", help="seed of the random faults instead of the file's")
    run.add_argument("--quiet", action="store_true", help="do not tell on standard error what happens")
    demo = commands.add_parser("demo", help="the whole chain on this machine, to try in the browser")
    demo.add_argument("--headless", action="store_true", help="play a short story and tell it line by line")
    soak = commands.add_parser("soak", help="play all drills of a folder many times in random order")
    soak.add_argument("folder", type=Path, metavar="DIR")
    soak.add_argument("--rounds", type=int, default=10, metavar="N", help="how often each (default 10)")
    soak.add_argument("--seed", type=int, metavar="N", help="of the order and of the drills' seeds (default: random)")
    soak.add_argument("--at-once", type=int, default=2, metavar="N", help="drills at the same time (default 2)")
    soak.add_argument("--keep", type=Path, default=Path("var/soak"), metavar="DIR", help="reports of failures")
    arguments = parser.parse_args(argv)
    return {"run": _run, "demo": _demo, "soak": _soak}[arguments.command](arguments)


def _run(arguments: argparse.Namespace) -> int:
    from drill.run import perform
    from drill.scenario import load

    try:
        scenario = load(arguments.file, arguments.seed)
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return WRONG_FILE
    keep: Path | None = arguments.keep
    if keep is None and arguments.json is not None:
        keep = arguments.json.with_name(arguments.json.name + ".d")
    try:
        report = until_interrupted(perform(scenario, keep, (lambda _line: None) if arguments.quiet else _told()))
    except DidNotStart as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)
        return DID_NOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED
    if arguments.json is not None:
        report.write(arguments.json)
    else:
        print(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    complain(report)
    return report.exit_status


def _demo(arguments: argparse.Namespace) -> int:
    from drill.demo import headless, show

    try:
        if not arguments.headless:
            until_interrupted(show())
            return 0
        report = until_interrupted(headless())
    except DidNotStart as error:
        print(error, file=sys.stderr)
        return DID_NOT_RUN
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 0
    complain(report)
    return report.exit_status


def _soak(arguments: argparse.Namespace) -> int:
    from drill.soak import soak

    if not arguments.folder.is_dir() or not any(arguments.folder.glob("*.toml")):
        print(f"{arguments.folder}: is not a folder with drills (*.toml)", file=sys.stderr)
        return WRONG_FILE
    if arguments.rounds < 1 or arguments.at_once < 1:
        print("--rounds and --at-once must be at least 1", file=sys.stderr)
        return WRONG_FILE
    seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
    try:
        failed = until_interrupted(soak(arguments.folder, arguments.rounds, seed, arguments.keep, arguments.at_once))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1 if failed else 0


def _told() -> Any:
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - start:7.2f}  {line}", file=sys.stderr, flush=True)

    return tell


def complain(report: Report) -> None:
    """Says on standard error why a report is not ok, one line each."""
    if report.lost:
        print(f"lost: {report.lost}", file=sys.stderr)
    if report.duplicates:
        print(f"seen twice: {report.duplicates}", file=sys.stderr)
    for error in report.errors:
        at = "before" if error.at is None else f"{error.at:.2f} s"
        print(f"error at {at}: {error.part}: {error.text}", file=sys.stderr)
    for failed in report.failed:
        print(f"{failed.expect}: {failed.text}", file=sys.stderr)


Result = TypeVar("Result")


def until_interrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs to the end, or cancels at SIGINT or SIGTERM, lets it clear up, and raises KeyboardInterrupt."""

    async def outer() -> Result:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(outer())


if __name__ == "__main__":
    sys.exit(main())
