"""`tocsin-hub doctor`: each thing that can be wrong is found, and said with what to do (B5)."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path
from typing import Any

import modem_emulator
import pytest
from neighbours import broker, free_port

from hub import certificates, cli, config, control, doctor
from hub.clock import Clock
from hub.doctor import FAIL, OK, WARN, Finding, Machine
from hub.identity import Identity

KEY = "ab" * 32


class FakeClock(Clock):
    """A clock that says what it is told to."""

    def __init__(self, wall: float | None = None, synchronised: bool = True) -> None:
        super().__init__()
        self._wall, self._synchronised = wall, synchronised

    def wall(self) -> float:
        return super().wall() if self._wall is None else self._wall

    def synchronised(self) -> bool:
        return self._synchronised


class Patient:
    """A hub in which everything is right, until a test breaks something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.extra = ""
        self.location = '[location]\nfixed = "52.9,-1.4"\n'
        self.port = free_port()
        (folder / "sys/class/bluetooth/hci0").mkdir(parents=True)
        (folder / "sys/class/rfkill/rfkill0").mkdir(parents=True)
        for name, value in (("type", "bluetooth"), ("soft", "0"), ("hard", "0")):
            (folder / "sys/class/rfkill/rfkill0" / name).write_text(value + "\n")
        (folder / "bus").touch()
        self.machine = Machine(folder / "sys", folder / "bus", FakeClock(), lambda _adapter: "")
        self.mqtt = ""

    @property
    def settings(self) -> config.Config:
        """Its configuration."""
        path = self.folder / "hub.toml"
        path.write_text(
            f'[hub]\ndir = "hub"\n[mqtt]\nport = {self.port}\n{self.mqtt}\n[station]\nkey = "{KEY}"\n'
            f"{self.location}{self.extra}"
        )
        return config.load(path, {})

    def find(self, what: str, status: dict[str, Any] | None = None) -> Finding:
        """The finding of this name."""
        real = control.ask

        def ask(path: Path) -> dict[str, Any]:
            if status is None:
                raise control.NoHub
            return status

        control.ask = ask
        try:
            found = [f for f in doctor.examine(self.settings, self.machine) if f.what == what]
        finally:
            control.ask = real
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    monkeypatch.setattr(doctor, "BROKER_S", 0.6)
    monkeypatch.setattr(doctor, "GPS_S", 1.0)
    return Patient(tmp_path)


RUNNING: dict[str, Any] = {
    "up_s": 60, "hub_id": "00" * 8, "radio": "ok", "broker": {"connected": True, "version": "5", "problem": ""},
    "station_answers": True, "keys": 2, "place_known": True,
}  # fmt: skip


def broken(patient: Patient, what: str, says: str, status: dict[str, Any] | None = None, how: str = FAIL) -> None:
    found = patient.find(what, status)
    assert found.how == how, found
    assert says in found.text, found


def found_out(monkeypatch: pytest.MonkeyPatch, patient: Patient, what: str, says: str) -> None:
    """It is seen by a thread and a loop while something is waited for: longer where the machine stalls."""
    for seconds in (0.6, 5.0, 20.0):
        monkeypatch.setattr(doctor, "BROKER_S", seconds)
        monkeypatch.setattr(doctor, "GPS_S", seconds)
        found = patient.find(what)
        if says in found.text:
            break
    assert found.how == FAIL, found
    assert says in found.text, found


def test_a_hub_in_which_nothing_is_wrong(patient: Patient) -> None:
    folder = patient.settings.dir
    Identity.load(folder)
    real = control.ask
    control.ask = lambda path: RUNNING
    try:
        found = list(doctor.examine(patient.settings, patient.machine))
    finally:
        control.ask = real
    assert [f for f in found if f.how == FAIL] == []
    assert {f.what for f in found} >= {"hub", "disk", "radio", "broker", "station", "clock", "place", "power"}


def test_no_adapter_and_another_than_configured(patient: Patient) -> None:
    patient.extra = '[radio]\nadapter = "hci7"\n'
    broken(patient, "radio", "no adapter hci7: there is hci0")
    (patient.folder / "sys/class/bluetooth/hci0").rmdir()
    broken(patient, "radio", "no Bluetooth adapter: plug one in")


def test_rfkill(patient: Patient) -> None:
    switch = patient.folder / "sys/class/rfkill/rfkill0"
    (switch / "soft").write_text("1\n")
    broken(patient, "radio", "sudo rfkill unblock bluetooth")
    (switch / "hard").write_text("1\n")
    broken(patient, "radio", "a switch or key on the machine")
    (switch / "type").write_text("wlan\n")
    assert patient.find("radio").how == OK


def test_no_bus_and_what_bluez_says(patient: Patient) -> None:
    patient.machine.bluez = lambda _adapter: "BlueZ does not run: sudo systemctl enable --now bluetooth"
    broken(patient, "radio", "systemctl enable --now bluetooth")
    (patient.folder / "bus").unlink()
    broken(patient, "radio", "there is no D-Bus, and so no BlueZ: sudo apt install bluez")


def test_the_real_bus_of_this_machine_is_asked_and_its_absence_is_survived() -> None:
    said = Machine().bluez("hci0")
    assert said == "" or any(word in said for word in ("D-Bus", "BlueZ", "switched off"))


def test_a_simulated_air_that_is_not_there(patient: Patient) -> None:
    patient.extra = f'[radio]\nair = "127.0.0.1:{free_port()}"\n'
    broken(patient, "radio", "start tocsin-air run")


def test_a_folder_that_may_not_be_written_and_keys_that_others_may_read(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = patient.settings.dir
    Identity.load(folder)
    (folder / "identity.json").chmod(0o644)
    broken(patient, "folder", "others may read identity.json: chmod 600")
    monkeypatch.setattr("os.access", lambda path, _mode: path != folder)
    broken(patient, "folder", "chown it to the hub's user")


def test_a_full_disk(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    Identity.load(patient.settings.dir)
    monkeypatch.setattr(doctor, "free_bytes", lambda _folder: 5_000_000)
    broken(patient, "disk", "5 MB free: make room")

    def fails(_folder: Path) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(doctor, "free_bytes", fails)
    broken(patient, "disk", "Input/output error: alarms are sent, but would not survive a restart")


def test_no_broker_and_one_that_drops_and_one_that_lets_us_in(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_out(monkeypatch, patient, "broker", "refused; is it started, and the port right?")
    status = {**RUNNING, "broker": {"connected": False, "problem": "Connection refused"}}
    broken(patient, "broker", "is it started, and the port right?", status)
    status = {**RUNNING, "broker": {"connected": True, "version": "5", "problem": "publish: Not authorized"}}
    broken(patient, "broker", "its rules do not let this hub publish", status)
    with broker("mosquitto", tmp_path) as port:
        patient.port = port
        with monkeypatch.context() as patiently:
            patiently.setattr(doctor, "BROKER_S", 30.0)
            assert patient.find("broker") == Finding("broker", OK, f"127.0.0.1:{port}: lets us in")
    door = socket.create_server(("127.0.0.1", 0))
    patient.port = door.getsockname()[1]
    found = patient.find("broker")
    assert found.how == FAIL
    assert "says nothing" in found.text or "not connected" in found.text
    door.close()


@pytest.fixture
def with_certificate(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> Any:
    ca = patient.folder / "ca"
    certificates.make_authority(ca)
    patient.mqtt = 'ca = "ca/ca.pem"'
    folder = patient.settings.dir
    identity = Identity.load(folder)

    def issue(days: int, ago: int = 0, hub_id: bytes = identity.hub_id) -> None:
        with monkeypatch.context() as then:
            at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(ago)
            then.setattr(certificates, "_now", lambda: at)
            signed = certificates.sign_hub(ca, certificates.request(folder / "mqtt.key", hub_id), days)
        (folder / "mqtt.pem").write_bytes(signed)

    return issue


def test_certificates(patient: Patient, with_certificate: Any) -> None:
    broken(patient, "certificate", "No such file or directory: tocsin-hub identity request")
    with_certificate(398)
    assert patient.find("certificate", RUNNING).how == OK
    with_certificate(20)
    broken(patient, "certificate", "ends in 20 days: renew it with tocsin-hub identity request", RUNNING, WARN)
    with_certificate(30, ago=40)
    broken(patient, "certificate", "ended 10 days ago: renew it", RUNNING)
    with_certificate(30, hub_id=b"another!")
    broken(patient, "certificate", "this certificate is for", RUNNING)
    (patient.settings.dir / "mqtt.pem").write_text("x")
    broken(patient, "certificate", "no certificate in PEM", RUNNING)
    patient.mqtt = ""
    broken(patient, "certificate", "not encrypted: give ca in [mqtt]", RUNNING, WARN)


def test_the_station_and_the_hub_itself(patient: Patient) -> None:
    broken(patient, "hub", "sudo systemctl start tocsin-hub", None, WARN)
    broken(patient, "station", "is the hub accepted there?", {**RUNNING, "station_answers": False})
    assert patient.find("station", RUNNING).text == "answers; 2 badges enrolled here"


def test_the_clock(patient: Patient) -> None:
    patient.machine.clock = FakeClock(wall=0)
    broken(patient, "clock", "says 1970: certificates cannot be checked; set it with timedatectl")
    patient.machine.clock = FakeClock(synchronised=False)
    broken(patient, "clock", "timedatectl set-ntp true", None, WARN)


def test_the_place(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    patient.location = '[location]\nnmea = "/dev/ttyUSB97"\n'
    found_out(monkeypatch, patient, "place", "No such file")
    patient.location = f'[location]\ngpsd = "127.0.0.1:{free_port()}"\n'
    found_out(monkeypatch, patient, "place", "gpsd at")
    broken(patient, "place", "no fix yet", {**RUNNING, "place_known": False})
    patient.location = ""
    broken(patient, "place", "give fixed, nmea or gpsd", None, WARN)


def test_the_modem(patient: Patient) -> None:
    emulated = modem_emulator.Modem()
    try:
        patient.extra = f'[second_path]\nmodem = "{emulated.port}"\nnumbers = ["+441632960001"]\n'
        assert patient.find("modem").text == "home network, signal 17 of 31"
        emulated.registration = 3
        broken(patient, "modem", "no network for text messages: refused by the network")
    finally:
        emulated.close()
    patient.extra = '[second_path]\nmodem = "/dev/ttyUSB99"\nnumbers = ["+441632960001"]\n'
    broken(patient, "modem", "is the modem plugged in?")
    broken(patient, "modem", "asks for", {**RUNNING, "second_path": {"ok": False, "state": "the SIM asks for its PIN"}})


def test_the_battery(patient: Patient) -> None:
    supply = patient.folder / "sys/class/power_supply/BAT0"
    supply.mkdir(parents=True)
    for name, value in (("type", "Battery"), ("capacity", "12"), ("status", "Discharging")):
        (supply / name).write_text(value + "\n")
    broken(patient, "power", "battery at 12 %: charge it")


def test_the_command_prints_each_finding_and_fails_when_one_does(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    _ = patient.settings
    assert cli.main(["doctor", "--config", str(patient.folder / "hub.toml")]) == 1
    said = capsys.readouterr().out
    assert "FAIL broker: 127.0.0.1" in said
    assert "warn hub: does not run here now" in said
