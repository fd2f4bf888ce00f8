"""Configuration and command line: every mistake is one line that says where and what to do."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station import accounts, config
from station.cli import main


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[station]\nport = 70000", "[station] port must be 0..65535"),
        ("[station]\nport = 'x'", "[station] port must be a whole number, not 'x'"),
        ("[station]\nprot = 1", "[station] has no key 'prot'; known: host, port"),
        ("[statoin]", "unknown table [statoin]"),
        ("[station]\nworkers = 40", "[station] workers must be 1..8"),
        ("[station]\nworkers = 2\nworker = 3", "[station] worker must be 1..2"),
        ("[station]\nworkers = 2", "[broker] host must be given with several workers"),
        ("[station]\napi_token = 'short'", "[station] api_token must have at least 16"),
        ("[station]\nurl = 'example.org'", "[station] url must begin with http"),
        ("[broker]\nkind = 'rabbit'", "[broker] kind must be one of auto, amqtt, mosquitto"),
        ("[broker]\nhost = 'b'\nport = 0", "[broker] port must be given with a host"),
        ("[broker]\nca = 'no.pem'", "[broker] ca names no file"),
        ("[visits]\ngrace = 0", "[visits] grace must be greater than 0"),
        ("[alarms]\nconsole_dead = true", "[alarms] console_dead must be a number"),
        ("[operator]\nname = 'a'", "[[operator]], with two brackets"),
        ("[[operator]]\nname = 'a'", "[[operator]] 1 needs a name and a password"),
        ("[[operator]]\nname='a'\npassword='b'\n[[operator]]\nname='a'\npassword='b'", "[[operator]] 2: name 'a' is"),
        ("[station", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_and_status_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = tmp_path / "station.toml"
    path.write_text(text)
    assert main(["config", "check", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tocsin-station: {path}")
    assert said in error
    assert error.count("\n") == 1


@given(st.binary(max_size=200))
def test_any_file_is_a_configuration_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(config.ConfigError):
        config.load(path)


def test_an_empty_file_is_a_configuration_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text("")
    assert config.load(path).station.port == 8080
    path.write_text("[station]\ndir = 'here'")
    assert config.load(path).station.dir == tmp_path / "here"
    assert main(["config", "check", str(path)]) == 0


def test_what_is_documented_is_what_there_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "station-api.md").read_text()
    for table in ("station", "broker", "alarms", "visits", "supervision"):
        for key in vars(getattr(config.Config(), table)):
            assert f"`{key}`" in text or f"[{table}] {key}`" in text, f"[{table}] {key} is not documented"


@pytest.mark.parametrize("arguments", [[], ["run", "--port", "x"], ["dance"], ["broker", "--kind", "rabbit"]])
def test_a_wrong_command_line_is_status_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["broker", "--help"], ["user", "add", "--help"]])
def test_every_command_has_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "usage: tocsin-station" in capsys.readouterr().out


def test_what_cannot_run_says_why_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "station.toml").write_text('[station]\nport = 0\ndatabase = "odd:///x"')
    assert main(["run", "--config", str(tmp_path / "station.toml")]) == 1
    (tmp_path / "file").write_text("")
    assert main(["run", "--port", "0", "--dir", str(tmp_path / "file" / "below")]) == 1
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "station.key").write_text("not hex")
    assert main(["run", "--port", "0", "--dir", str(tmp_path / "broken")]) == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "taken.toml").write_text(f"[station]\nport = 0\n[broker]\nport = {taken.getsockname()[1]}")
        assert main(["run", "--config", str(tmp_path / "taken.toml")]) == 1
        assert main(["run", "--port", str(taken.getsockname()[1]), "--dir", str(tmp_path / "x")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("tocsin-station: ") for line in lines)


def test_an_operator_is_made_from_a_pipe_and_weak_ones_are_refused(tmp_path: Path) -> None:
    def add(name: str, password: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "station.cli", "user", "add", name, "--dir", str(tmp_path / "data")]
        return subprocess.run(command, input=password + "\n", text=True, capture_output=True, check=False)

    assert add("rahima", "a good password").returncode == 0
    weak = add("bob", "short")
    assert (weak.returncode, weak.stderr.count("\n")) == (1, 1)


def test_passwords_are_argon2id_and_never_stored() -> None:
    encoded = accounts.hash_password("correct horse")
    assert encoded.startswith("$argon2id$")
    assert "correct horse" not in encoded
