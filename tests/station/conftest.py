"""What the station's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from station_running import Running, running
from station_world import World

from station.broker import find_mosquitto


@pytest.fixture
def mosquitto() -> None:
    """A test that needs mosquitto itself, and not any broker."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; on Debian and Ubuntu: apt install mosquitto")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A station of this test's own."""
    made = World(tmp_path)
    yield made
    made.core.store.close()


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One station for many examples, each with a badge of its own."""
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.core.store.close()


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One running station for all tests that need a process; each uses badges of its own."""
    with running(tmp_path_factory.mktemp("station")) as started:
        yield started
