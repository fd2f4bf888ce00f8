"""tocsin-air: the simulated air as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys

from firmware.emulator.air.link import Air
from firmware.emulator.air.server import serve


async def _run(host: str, port: int, seed: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        server = await serve(Air(seed), host, port)
    except (OSError, OverflowError) as problem:
        print(f"tocsin-air: cannot listen on {host} port {port}: {problem}", file=sys.stderr)
        return 2
    print(json.dumps({"ready": True, "port": server.sockets[0].getsockname()[1]}), flush=True)
    await stop.wait()
    server.close()
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command. Exit status: 0 stopped when asked, 2 cannot start."""
    parser = argparse.ArgumentParser(
        prog="tocsin-air", description="Simulated Bluetooth air: controllers over HCI, and a faulty link."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the air until SIGTERM or Ctrl-C")
    run.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    run.add_argument("--port", type=int, default=0, help="TCP port (default: any free one)")
    run.add_argument("--seed", type=int, default=0, help="seed of all random draws (default: %(default)s)")
    run.add_argument("--verbose", action="store_true", help="say on stderr who comes and goes")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(name)s: %(message)s")
    return asyncio.run(_run(args.host, args.port, args.seed))


if __name__ == "__main__":
    sys.exit(main())
