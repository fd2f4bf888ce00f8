"""tocsin-drill: rehearse the whole chain from a file, show it, or try it hard."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from drill.processes import DidNotStart
from drill.report import DID_NOT_RUN, WRONG_FILE, Report
from drill.validate import ScenarioError

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> None:
    """The command. Exit status: 0 all held, 1 something failed, 2 the file is wrong, 3 a part did not start."""
    parser = argparse.ArgumentParser(prog="tocsin-drill", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="play a drill and write what happened")
    run.add_argument("file", type=Path, metavar="FILE.toml")
    run.add_argument("--json", type=Path, metavar="REPORT", help="write the report here instead of standard output")
    run.add_argument("--keep", type=Path, metavar="DIR", help="keep sound and logs here (default: REPORT.d)")
    run.add_argument("--seed", type=int, metavar="N", help="seed of the random faults instead of the file's")
    run.add_argument("--quiet", action="store_true", help="do not tell on standard error what happens")
    arguments = parser.parse_args(argv)
    sys.exit(_run(arguments))


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
    main()
