"""An emulated badge is updated over its serial port, by the command that a technician types."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest
from badge_central import Central
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from test_badge_air import Story, story
from test_sos_in_every_state import an_sos_gets_out

from firmware.emulator import build
from firmware.emulator.quiet import quieten
from firmware.tools import cli, image, provision
from protocol import kinds, patterns, restart
from protocol.ident import NONE

WENT_BACK = 6  # firmware/badge/retained.py
RELEASE_2 = '"""x."""\nMARK = b"tocsin-release 2 0.2.0 ;"\nRELEASE, VERSION = 2, "0.2.0"\n'
BROKEN = 'raise ValueError("this release does not even load")\n'


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return image.new_key()


@cache
def firmware(version: str, release: int) -> bytes:
    return image.emulator_firmware(version, release, key().public_key())


class Desk:
    """A technician with an update, a key and a cable."""

    def __init__(self, folder: Path, told: Story) -> None:
        self.folder = folder
        self.told = told
        self.port = told.badge.plug_in()

    def made(self, version: str, release: int, trial: int = 30, what: bytes | None = None) -> Path:
        path = self.folder / f"{version}.tbu"
        path.write_bytes(image.make("emulator", what or firmware(version, release), key(), trial=trial))
        return path

    async def update(self, file: Path) -> int:
        """`tocsin-badge update FILE --port PORT`; its exit status."""
        return await asyncio.to_thread(cli.main, ["update", str(file), "--port", self.port])

    def running(self) -> int:
        """The slot that the boot loader started last."""
        starts = [event for event in self.told.events if event["type"] == "state" and event["state"] == "booting"]
        return int(starts[-1]["slot"])

    async def until(self, state: str, seconds: float = 60) -> None:
        """Wait until the badge says `@update state=...`."""
        await self.told.central.until(
            lambda: any(trace["fields"].get("state") == state for trace in self.told.traces("update")), seconds
        )

    async def until_byte(self, wanted: int) -> None:
        await self.told.central.until(
            lambda: any(int(t["fields"].get("at", 0)) >= wanted for t in self.told.traces("update")), 60
        )


def play(folder: Path, scene: Callable[[Desk], Awaitable[None]], trusts: bool = True) -> None:
    quieten()

    async def run() -> None:
        (folder / "update_key.py").write_text(image.public_module(key().public_key()))
        extra = {"firmware/badge/update_key.py": folder / "update_key.py"} if trusts else None
        async with asyncio.timeout(240), story(folder, extra=extra, settings={"visit_minutes": 45}) as told:
            await told.feels(patterns.PROTECTED)
            await scene(Desk(folder, told))

    asyncio.run(run())


def closed(central: Central) -> None:
    central.state(kinds.CLOSED)
    central.incident, central.level = NONE, kinds.RAISED


async def an_alarm(told: Story) -> bytes:
    """SOS from the press to the pattern that says who has it; the event's identity."""
    before = told.felt().count(patterns.STATION_HAS_IT)
    heard = await an_sos_gets_out(told)
    await told.central.until(lambda: told.felt().count(patterns.STATION_HAS_IT) > before)
    return heard.ident


async def alarm_over(told: Story) -> None:
    closed(told.central)
    deadline = asyncio.get_running_loop().time() + 20
    while (await told.state())["alarm"] is not None:
        assert asyncio.get_running_loop().time() < deadline
        closed(told.central)
        await asyncio.sleep(0.3)


def test_an_update_arrives_reaches_a_hub_and_stays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def scene(desk: Desk) -> None:
        told = desk.told
        before = await told.state()
        assert await desk.update(desk.made("0.2.0", 2)) == 0
        assert "0.2.0 has reached a hub, and stays" in capfd.readouterr().out
        assert desk.running() == 1
        after = await told.state()
        assert after["badge"] == before["badge"]
        assert after["boot"] > before["boot"]
        booted = told.traces("booted")[-1]["fields"]
        assert booted["cause"] == "2"
        # settings and keys are where they were, and the release is the badge's own from now on
        assert after["settings"] == before["settings"]
        assert await desk.update(desk.made("0.1.0", 1)) == 1
        assert "release 1 is older than the badge's own, 2" in capfd.readouterr().err
        starts = len(told.traces("booted"))
        await told.badge.do({"do": "power_cut", "for": 0.1})
        await told.central.until(lambda: len(told.traces("booted")) > starts)
        assert desk.running() == 1
        await an_alarm(told)

    play(tmp_path, scene)


def test_an_update_that_reaches_no_hub_goes_back_by_itself_and_the_station_hears_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(desk: Desk) -> None:
        told, central = desk.told, desk.told.central
        file = desk.made("0.2.0", 2, trial=6)
        updating = asyncio.create_task(desk.update(file))
        await desk.until("checked")
        central.connect = False
        await central.hang_up()
        assert await updating == 1
        assert "0.2.0 did not reach a hub in 6 s" in capfd.readouterr().err
        assert desk.running() == 0
        central.connect = True
        await central.until(
            lambda: any(
                h.kind == kinds.BOOTED and h.event is not None and h.event.body[1] == WENT_BACK
                for h in central.events.values()
            ),
            20,
        )
        assert restart.worrying(2, WENT_BACK, 0)
        assert "did not reach a hub" in restart.words(2, WENT_BACK, 0, 0, 0, 0, 0, 0)
        state = await told.state()
        assert state["protected"] == 1 or told.felt().count(patterns.PROTECTED) > 1
        await an_alarm(told)

    play(tmp_path, scene)


def test_a_release_that_does_not_even_load_is_left_by_the_boot_loader(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(desk: Desk) -> None:
        for name, text in (("app.py", BROKEN), ("release.py", RELEASE_2)):
            (tmp_path / name).write_text(text)
        extra = {f"firmware/badge/{name}": tmp_path / name for name in ("app.py", "release.py", "update_key.py")}
        broken = await asyncio.to_thread(build.image, extra=extra)
        assert await desk.update(desk.made("0.2.0", 2, what=broken)) == 1
        assert "did not run; the badge went back" in capfd.readouterr().err
        assert desk.running() == 0
        await an_alarm(desk.told)

    play(tmp_path, scene)


def test_a_release_that_does_not_find_the_keys_goes_back_by_itself(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(desk: Desk) -> None:
        blind = (image.ROOT / "firmware/badge/store.py").read_text()
        assert "len(payload) != 51" in blind
        (tmp_path / "store.py").write_text(blind.replace("len(payload) != 51", "len(payload) != 52"))
        (tmp_path / "release.py").write_text(RELEASE_2)
        extra = {f"firmware/badge/{name}": tmp_path / name for name in ("store.py", "release.py", "update_key.py")}
        wrong = await asyncio.to_thread(build.image, extra=extra)
        assert await desk.update(desk.made("0.2.0", 2, trial=6, what=wrong)) == 1
        assert "the badge went back" in capfd.readouterr().err
        assert desk.told.traces("unprovisioned")
        assert desk.running() == 0
        await an_alarm(desk.told)

    play(tmp_path, scene)


def test_a_second_update_while_one_is_on_trial_leaves_what_it_may_have_to_go_back_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(desk: Desk) -> None:
        told, central = desk.told, desk.told.central
        before = told.badge.slots.image(0)
        file = desk.made("0.2.0", 2, trial=20)
        updating = asyncio.create_task(desk.update(file))
        await desk.until("checked")
        central.connect = False
        await central.hang_up()
        await desk.until("trial")
        told.badge.console(f"update begin {file.stat().st_size} 00000000")
        await central.until(lambda: any(t["fields"].get("why") == "on_trial" for t in told.traces("update")), 10)
        assert told.badge.slots.image(0) == before
        central.connect = True
        assert await updating == 0
        # and what stands is not taken once more: there would be nothing else to go back to
        assert await desk.update(file) == 0
        assert "0.2.0 runs on the badge already" in capfd.readouterr().out
        assert told.badge.slots.image(0) == before
        assert desk.running() == 1

    play(tmp_path, scene)


def test_sos_at_every_moment_of_an_update(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        told, central = desk.told, desk.told.central
        file = desk.made("0.2.0", 2)
        heard = []
        # while the signature is checked
        updating = asyncio.create_task(desk.update(file))
        await desk.until_byte(128)
        heard.append(await an_alarm(told))
        await alarm_over(told)
        # in the middle of the transfer
        await desk.until_byte(30_000)
        heard.append(await an_alarm(told))
        assert not updating.done()
        await alarm_over(told)
        # while it waits for a visit to end
        await told.badge.do({"do": "start_visit"})
        await central.until(
            lambda: any("visit" in trace["fields"].get("why", "") for trace in told.traces("update")), 10
        )
        heard.append(await an_alarm(told))
        assert desk.running() == 0
        await alarm_over(told)
        await told.badge.do({"do": "end_visit"})
        # on trial
        await desk.until("trial")
        heard.append(await an_alarm(told))
        assert desk.running() == 1
        assert await updating == 0
        assert len(set(heard)) == 4
        # neither hand nor motor nor an alarm ever went without memory
        assert not {each["fields"]["subject"] for each in told.traces("fault")} & {"sos", "buttons", "haptic", "time"}
        assert not told.traces("stuck")
        assert not told.traces("hopeless")

    play(tmp_path, scene)


def test_a_badge_without_a_key_takes_no_update(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def scene(desk: Desk) -> None:
        assert await desk.update(desk.made("0.2.0", 2)) == 1
        assert "this badge has no update key" in capfd.readouterr().err
        assert desk.running() == 0

    play(tmp_path, scene, trusts=False)


def test_keys_come_over_the_same_cable(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        record = provision.Record(77, bytes(range(32)), bytes(16), {})
        await asyncio.to_thread(provision.to_serial, record, desk.port)
        await desk.told.central.until(lambda: desk.told.traces("booted")[-1]["fields"]["badge"] == "77", 15)

    play(tmp_path, scene)


def test_the_command_says_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "key.pem"
    secret.write_bytes(key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    good = tmp_path / "good.tbu"
    made = ["image", "make", "--board", "emulator", "--key", str(secret), "-o", str(good), "--version", "9.9"]
    assert cli.main([*made, "--release", "9"]) == 0
    assert cli.main(["image", "show", str(good), "--key", str(secret)]) == 0
    assert "version 9.9 (release 9) for emulator" in capfd.readouterr().out
    cut = tmp_path / "cut.tbu"
    cut.write_bytes(good.read_bytes()[:-1])
    other = tmp_path / "other.pem"
    public = tmp_path / "public.py"
    assert cli.main(["image", "key", str(other), "--public", str(public)]) == 0
    assert other.stat().st_mode & 0o777 == 0o600
    assert "PUBLIC = (" in public.read_text()
    capfd.readouterr()
    app = bytearray(64)
    app[0], app[12], app[32:36] = 0xE9, 5, (0xABCD5432).to_bytes(4, "little")
    wrong_chip = tmp_path / "micropython.bin"
    wrong_chip.write_bytes(app)
    make = ["image", "make", "--key", str(secret), "-o", str(tmp_path / "x.tbu")]
    for words, status, said in (
        (["update", str(tmp_path / "none.tbu"), "--port", "/dev/null"], 2, "No such file"),
        (["update", str(secret), "--port", "/dev/null"], 2, "not an update"),
        (["update", str(cut), "--port", "/dev/null"], 2, "damaged or cut off"),
        (["update", str(good), "--port", str(tmp_path / "ttyX")], 1, "could not open port"),
        (["image", "show", str(good), "--key", str(other)], 2, "NOT signed"),
        (["image", "key", str(other), "--public", str(public)], 2, "exists"),
        (["image", "key", str(tmp_path / "no.pem"), "--again", "--public", str(public)], 2, "No such file"),
        ([*make, "--board", "badge_s3"], 2, "--firmware"),
        ([*make, "--board", "toaster", "--firmware", str(good)], 2, "known are"),
        ([*make, "--board", "badge_s3", "--firmware", str(good)], 2, "micropython.bin"),
        ([*make, "--board", "badge_s3", "--firmware", str(wrong_chip)], 2, "chip 5"),
        ([*make, "--board", "emulator", "--firmware", str(secret)], 2, "no firmware of a badge"),
        ([*make, "--board", "emulator", "--trial", "1"], 2, "trial"),
        ([*make, "--board", "emulator", "--firmware", str(good), "--version", "2"], 2, "release.py"),
        ([*make[:3], str(public), "--board", "emulator"], 2, "no private key"),
    ):
        assert cli.main(words) == status, words
        err = capfd.readouterr().err
        assert said in err, (words, err)
        assert err.count("\n") == 1
    # a firmware that trusts another key is made only on purpose
    stray = tmp_path / "stray.rom"
    stray.write_bytes(image.emulator_firmware("0.3.0", 3))
    stray_make = [*make, "--board", "emulator", "--firmware", str(stray)]
    assert cli.main(stray_make) == 2
    assert "--other-key" in capfd.readouterr().err
    assert cli.main([*stray_make, "--other-key"]) == 0


def test_the_release_in_the_source_is_that_of_the_project() -> None:
    project = tomllib.loads((image.ROOT / "pyproject.toml").read_text())["project"]
    source = (image.ROOT / "firmware" / "badge" / "release.py").read_bytes()
    assert image.release_of(source).version == project["version"]
