"""The station's process: everything started, the web server in the middle, everything stopped again."""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from station.config import Config
from station.console import app as console
from station.run import Station, StationError

SHUTDOWN_S = 5  # until connections are cut that have not ended by themselves when the station stops


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT; says `ready` on stdout. Raises CannotRun."""
    listening = _listen(config.station.host, config.station.port)
    station = Station(config)
    try:
        station.start()
        asyncio.run(_serve(station, listening))
    finally:
        station.stop()


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


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if port:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # at once: until a socket listens, somebody else may take the same port and be the first to listen
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
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
