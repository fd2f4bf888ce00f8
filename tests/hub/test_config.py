"""Configuration mistakes: one line that says the file, the key and what is allowed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hub import cli, config
from hub.config import ConfigError, load

KEY = "ab" * 32
STATION = f'[station]\nkey = "{KEY}"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "hub.toml"
    path.write_text(text)
    return path


def test_the_stations_key_is_all_that_must_be_given(tmp_path: Path) -> None:
    settings = load(written(tmp_path, STATION))
    assert settings.station_key == bytes.fromhex(KEY)
    assert settings.dir == tmp_path / "var/hub"
    assert settings.air_name == "hub:hub"
    assert (settings.mqtt_host, settings.mqtt_port, settings.mqtt_version) == ("127.0.0.1", 1883, "auto")
    assert settings.enrol is True


def test_every_key_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "station.key").write_text(KEY + "\n")
    settings = load(
        written(
            tmp_path,
            """
            [hub]
            dir = "state"
            name = "bag"
            enrol = [12, 13]
            clock_offset = -3600
            [radio]
            air = "127.0.0.1:7000"
            name = "hub:other"
            [mqtt]
            host = "broker.example"
            port = 1884
            user = "bag"
            password = "secret"
            keepalive = 5
            version = "3.1.1"
            [station]
            key_file = "station.key"
            [location]
            nmea = "track.nmea"
            baud = 4800
            [audio]
            max_mb = 10
            [log]
            level = "debug"
            """,
        )
    )
    assert settings.enrol == frozenset({12, 13})
    assert settings.nmea == tmp_path / "track.nmea"
    assert settings.air_name == "hub:other"
    assert settings.audio_max_bytes == 10_000_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "[station] key is missing"),
        ('[station]\nkey = "abc"', "64 hexadecimal digits"),
        ('[station]\nkey_file = "nowhere"', "key_file"),
        (STATION + f'key_file = "x"\n[hub]\nname = "{KEY}"', "[hub] name must be 1 to 32"),
        ("[hub]\nnmae = 'bag'", "unknown key 'nmae' in [hub]; did you mean 'name'?"),
        ("[hubb]\n", "unknown table [hubb]; did you mean 'hub'?"),
        ("[zzz]\n", "there are hub, radio, mqtt"),
        ("hub = 1", "hub must be a table"),
        ("[hub\n", "not TOML"),
        ("[mqtt]\nport = 70000", "[mqtt] port must be a whole number from 1 to 65535, not 70000"),
        ("[mqtt]\nport = true", "not True"),
        ('[mqtt]\nport = "1883"', "not '1883'"),
        ('[mqtt]\nversion = "4"', 'must be one of "auto", "5", "3.1.1"'),
        ('[location]\nfixed = "52.9"', "latitude,longitude"),
        ('[location]\nfixed = "152.9,1"', "latitude goes from -90 to 90"),
        ('[radio]\nair = "7000"', "host:port"),
        ("[hub]\nenrol = [0]", "a list of badge numbers"),
        ("[hub]\nclock_offset = 'x'", "must be a number"),
        (STATION + '[radio]\nair = "a:1"\nadapter = "hci0"', "has both air and adapter"),
        (STATION + '[location]\nfixed = "1,1"\nnmea = "x"', "has both fixed and nmea"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_remedy(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert cli.main(["run", "--config", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", str(tmp_path / "none.toml")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_check_says_valid_and_keys_lists_every_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", str(written(tmp_path, STATION))]) == 0
    assert "valid" in capsys.readouterr().out
    assert cli.main(["config", "keys"]) == 0
    listed = capsys.readouterr().out
    for table, keys in config.KEYS.items():
        for name in keys:
            assert f"[{table}] {name}" in listed


def test_status_without_a_hub_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--config", str(written(tmp_path, STATION))]) == 1
    assert "no hub answers" in capsys.readouterr().err


def test_two_hubs_in_one_folder_would_be_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "var/hub"
    lock = cli._alone(folder)
    try:
        assert cli.main(["run", "--config", str(written(tmp_path, STATION))]) == 1
    finally:
        os.close(lock)
    assert "another hub runs in this folder" in capsys.readouterr().err


def test_a_damaged_identity_is_not_replaced_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "var/hub"
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps({"ed25519": "00"}))
    assert cli.main(["run", "--config", str(written(tmp_path, STATION))]) == 1
    assert "identity.json: damaged" in capsys.readouterr().err
