"""What a drill starts it also ends, it notices what a part should not do, and a network that is down is silent."""

import asyncio
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drill import processes
from drill.processes import DidNotStart, Part, Port
from drill.uplink import Uplink

READY = 'print(\'{"ready": true, "port": 1}\', flush=True)\n'
STAY = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + READY
FOREVER = "time.sleep(60)\n"


def part(code: str, tmp_path: Path) -> tuple[Part, list[str]]:
    complaints: list[str] = []
    argv = [sys.executable, "-c", code]
    return Part("part", argv, tmp_path / "part.log", lambda _part, text: complaints.append(text)), complaints


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        # also when it goes between the two
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    return not alive(pid)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_a_part_is_ready_and_stops_without_a_word(tmp_path: Path) -> None:
    async def story() -> None:
        one, complaints = part(
            "import sys; print('WARNING disk: soon full', file=sys.stderr)\n" + STAY + FOREVER, tmp_path
        )
        assert (await one.start())["port"] == 1
        assert one.running
        await one.stop()
        assert not one.running
        assert complaints == []
        assert "soon full" in (tmp_path / "part.log").read_text()

    asyncio.run(story())


def test_a_part_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def story() -> None:
        one, _ = part("import sys; sys.exit('hub.toml: [radio] air: no such air')", tmp_path)
        with pytest.raises(DidNotStart, match="no such air"):
            await one.start()

    asyncio.run(story())


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        one = Part("part", [str(tmp_path / "nothing")], tmp_path / "log", lambda *_: None)
        with pytest.raises(DidNotStart, match="No such file"):
            await one.start()

    asyncio.run(story())


def test_tracebacks_and_errors_are_noticed(tmp_path: Path) -> None:
    async def story() -> None:
        code = STAY + (
            "import traceback\n"
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n"
            "print('2026-01-01 ERROR outbox: gone', file=sys.stderr, flush=True)\n"
        )
        one, complaints = part(code + FOREVER, tmp_path)
        await one.start()
        await until(lambda: len(complaints) >= 2)
        await one.stop()
        assert "ZeroDivisionError" in complaints[0]
        assert "outbox: gone" in complaints[1]
        assert len(complaints) == 2

    asyncio.run(story())


def test_a_part_that_ends_by_itself_is_noticed_and_one_that_was_killed_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        one, complaints = part(STAY + "time.sleep(0.1); print('tired', file=sys.stderr); sys.exit(3)\n", tmp_path)
        await one.start()
        await until(lambda: complaints)
        assert "status 3: tired" in complaints[0]
        await one.stop()
        two, complaints = part(STAY + FOREVER, tmp_path)
        await two.start()
        await two.kill()
        await two.start()
        assert two.running
        await two.stop()
        assert complaints == []

    asyncio.run(story())


def test_a_part_that_is_killed_before_it_is_ready_did_not_fail_to_start(tmp_path: Path) -> None:
    async def story() -> None:
        one, complaints = part(
            f"import time, pathlib\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\n" + FOREVER, tmp_path
        )
        starting = asyncio.create_task(one.start())
        await until((tmp_path / "begun").exists)
        await one.kill()
        assert await starting == {}
        # also in the instant before there is a process
        starting = asyncio.create_task(one.start())
        await asyncio.sleep(0)
        await one.kill()
        assert await starting == {}
        assert not one.up
        assert complaints == []

    asyncio.run(story())


def test_children_of_a_part_die_with_it_and_those_left_behind_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what is left behind here stays for a minute
    monkeypatch.setattr(processes, "LEFT_S", 0.5)

    async def story() -> None:
        child = "import subprocess\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        one, complaints = part(
            STAY + child + "print('child', child.pid, file=sys.stderr, flush=True)\n" + FOREVER, tmp_path
        )
        for end in (one.kill, one.stop):
            await one.start()
            await until(lambda: "child" in (tmp_path / "part.log").read_text())
            pid = int((tmp_path / "part.log").read_text().split()[-1])
            (tmp_path / "part.log").write_text("")
            await end()
            await until(functools.partial(gone, pid))
        assert complaints == ["left processes behind when it stopped"]

    asyncio.run(story())


def test_no_part_outlives_a_drill_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom drill.processes import Part\n"
        f"part = Part('p', [sys.executable, '-c', {STAY + FOREVER!r}], Path({str(tmp_path / 'log')!r}), print)\n"
        "async def main():\n    await part.start()\n    print(part.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    drill = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert drill.stdout is not None
    pid = int(drill.stdout.readline())
    assert alive(pid)
    drill.send_signal(signal.SIGKILL)
    drill.wait()
    end = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)
    drill.stdout.close()


def test_a_port_stays_with_the_drill_while_nobody_listens_on_it() -> None:
    port = Port()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port.number))
    listener.listen()
    with socket.create_connection(("127.0.0.1", port.number), timeout=1):
        pass
    listener.close()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port.number))
    port.close()


class Echo:
    """A broker that says everything back."""

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()


async def silent(reader: asyncio.StreamReader, seconds: float = 0.15) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.read(1)
        return False
    return True


def test_a_network_that_is_down_is_silent_and_goes_on_where_it_stopped() -> None:
    async def story() -> None:
        echo = Echo()
        uplink = Uplink(await echo.start())
        reader, writer = await asyncio.open_connection("127.0.0.1", await uplink.start())
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        uplink.down()
        writer.write(b"two")
        assert await silent(reader)
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", uplink.port)
        with contextlib.suppress(ConnectionResetError):
            assert await late_reader.read(1) == b""
        uplink.up()
        async with asyncio.timeout(20):
            assert await reader.readexactly(3) == b"two"
        writer.close()
        late_writer.close()
        await uplink.stop()
        echo.server.close()

    asyncio.run(story())


def test_without_a_broker_the_hub_is_turned_away() -> None:
    async def story() -> None:
        gone = Port()
        uplink = Uplink(gone.number)
        reader, writer = await asyncio.open_connection("127.0.0.1", await uplink.start())
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        writer.close()
        await uplink.stop()
        gone.close()

    asyncio.run(story())
