"""amqtt on a port of 127.0.0.1, for tests: `python amqtt_broker.py PORT`."""

import asyncio
import logging
import sys

from amqtt.broker import Broker

CONFIG = {
    "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}},
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


async def main() -> None:
    """Serve until killed."""
    logging.basicConfig(level=logging.ERROR)
    broker = Broker(CONFIG)
    await broker.start()
    await asyncio.Event().wait()


asyncio.run(main())
