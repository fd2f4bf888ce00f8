"""tocsin-badge: what one does with a badge at a desk. Each subcommand is a module with add_arguments and run."""

from __future__ import annotations

import argparse
import importlib
import sys

# name: (module with add_arguments(parser) and run(args) -> exit status, what it is for)
COMMANDS = {
    "emulate": ("firmware.emulator.companion", "run a badge on this machine, with a panel to click on"),
    "image": ("firmware.tools.image", "make, sign and look at a firmware update"),
    "provision": ("firmware.tools.provision", "give a badge its keys and register it at a station"),
    "update": ("firmware.tools.update", "give a badge new firmware over its serial cable"),
}


def main(argv: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 2 wrong options or configuration (one line on stderr says where)."""
    parser = argparse.ArgumentParser(prog="tocsin-badge", description="Provision, update and emulate Tocsin badges.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    given = sys.argv[1:] if argv is None else argv
    for name, (module, summary) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if given[:1] == [name]:  # a module is loaded only when it is asked for: roles install what they need
            importlib.import_module(module).add_arguments(sub)
    args = parser.parse_args(given)
    return int(importlib.import_module(COMMANDS[args.command][0]).run(args))


if __name__ == "__main__":
    sys.exit(main())
