"""The embedded MQTT broker: mosquitto where it is installed, else amqtt, on the loopback only.

It keeps nothing on disk and need not: a hub's outbox is emptied by the station's receipts, never by the broker. It
runs as a process of its own (`tocsin-station broker`), which `tocsin-station run` starts and starts again.
"""

import asyncio
import contextlib
import getpass
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from station.errors import CannotRun
from station.parent import ENVIRONMENT, die_with_parent

logger = logging.getLogger("station.broker")

HOST = "127.0.0.1"
START_S = 10.0  # until a broker must accept connections
RESTART_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # waiting before each further attempt; the last one is repeated
ANOTHER = 2  # further ports that are tried where any will do
_SETTLE_S = 0.1  # mosquitto gives up within, where it cannot have its port
_HEALTHY_S = 30.0  # a broker that ran so long starts again at once


class BrokerError(CannotRun):
    """The broker could not be started; the text says what to do."""


def find_mosquitto() -> str | None:
    """The mosquitto program; Debian puts it where ordinary users' PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def choose(kind: str) -> str:
    """`auto` becomes a kind that is there. Raises BrokerError."""
    if kind == "mosquitto" and find_mosquitto() is None:
        raise BrokerError("mosquitto is not installed: install it, or choose kind amqtt or auto")
    if kind == "auto":
        return "mosquitto" if find_mosquitto() else "amqtt"
    return kind


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


# --- the broker's own process -----------------------------------------------------------------------------------


def serve(kind: str, port: int, ready: Callable[[str, int], None]) -> int:
    """Run a broker until SIGTERM or SIGINT; `ready(kind, port)` is called once it accepts connections.

    Returns the exit status. Raises BrokerError.
    """
    kind = choose(kind)
    if port and _taken(port):
        raise BrokerError(f"port {port} is taken: another broker runs there; give another port, or 0 for a free one")
    port = port or free_port()
    if kind == "mosquitto":
        return _serve_mosquitto(port, ready)
    return asyncio.run(_serve_amqtt(port, ready))


def _serve_mosquitto(port: int, ready: Callable[[str, int], None]) -> int:
    program = find_mosquitto()
    assert program is not None
    lines = (
        f"listener {port} {HOST}",
        "allow_anonymous true",  # loopback only; what is said is signed and sealed by others
        "persistence false",
        "set_tcp_nodelay true",  # without it sound waits for Nagle's algorithm
        "max_queued_messages 10000",
        "log_dest stderr",
        "log_type error",
        # started by root it would change its user, and by that forget to die with us
        f"user {getpass.getuser()}",
    )
    with tempfile.TemporaryDirectory(prefix="tocsin-broker-") as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        child = subprocess.Popen([program, "-c", str(config)], preexec_fn=die_with_parent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: child.terminate())
        try:
            limit = time.monotonic() + START_S
            while not _accepts(port):
                _must_run(child, 0.02)
                if time.monotonic() > limit:
                    raise BrokerError(f"mosquitto did not accept connections on port {port}")
            # whoever accepts may be somebody else, who took the port since it was found free: then ours ends at once
            _must_run(child, _SETTLE_S)
            ready("mosquitto", port)
            status = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    return 0 if status in (0, -signal.SIGTERM) else 1


def _must_run(child: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for so long; raises BrokerError where the broker ends meanwhile."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise BrokerError(f"mosquitto ended with status {child.wait(seconds)} instead of starting")


async def _serve_amqtt(port: int, ready: Callable[[str, int], None]) -> int:
    from amqtt.broker import Broker

    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    ready("amqtt", port)
    await stop.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2.0):
            await broker.shutdown()
    return 0


# --- the station's side -----------------------------------------------------------------------------------------


class EmbeddedBroker:
    """A broker as a supervised child: started again on the same port when it ends."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self._any = port == 0  # whichever is free
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure: str | None = None
        # children are bound to the life of the thread that starts them, so one thread starts them all
        self._thread = threading.Thread(target=self._supervise, name="broker", daemon=True)

    def start(self) -> None:
        """Start it and wait until it accepts connections. Raises BrokerError."""
        self.kind = choose(self.kind)
        if self.port and _taken(self.port):
            raise BrokerError(
                f"[broker] port {self.port} is taken: give host to use the broker that runs there, "
                "or another port (0: any free one)"
            )
        self.port = self.port or free_port()
        self._thread.start()
        self._ready.wait(START_S)
        if self._failure is not None or not self._ready.is_set():
            self.stop()
            raise BrokerError(f"the embedded broker did not start: {self._failure or 'it does not answer'}")

    def stop(self) -> None:
        """End the child and wait for it."""
        self._stopping.set()
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _supervise(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            self._run()
            if self._stopping.is_set():
                return
            if not self._ready.is_set():
                if self._any and attempt < ANOTHER:
                    # somebody took the port since it was found free
                    attempt += 1
                    self.port = free_port()
                    continue
                self._failure = self._failure or "it ended at once"
                self._ready.set()
                return
            attempt = 0 if time.monotonic() - began > _HEALTHY_S else attempt + 1
            wait = RESTART_S[min(attempt, len(RESTART_S) - 1)]
            logger.warning("the embedded broker ended; starting it again in %.1f s", wait)
            self._stopping.wait(wait)

    def _run(self) -> None:
        command = [sys.executable, "-m", "station.cli", "broker", "--kind", self.kind, "--port", str(self.port)]
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, ENVIRONMENT: "1"},
            # Ctrl-C goes to the whole terminal group; the station ends its broker itself, and last
            start_new_session=True,
        )
        self._child = child
        if self._stopping.is_set():
            child.terminate()
        assert child.stdout is not None
        for _ in child.stdout:
            self._ready.set()
        child.wait()
