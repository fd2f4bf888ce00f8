"""Sessions of operators: a database that refuses to renew one shuts nobody out who is signed in."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, event
from station_world import World

from station import accounts
from station.model import WebSession


@pytest.fixture
def token(world: World) -> str:
    """The session of op1, who signed in just now."""
    world.operator("op1")
    with world.core.work() as work:
        key = accounts._token_hash("a token")
        work.db.add(WebSession(token_hash=key, operator="op1", made_at=work.now, used_at=work.now))
    return "a token"


@contextmanager
def refusing(world: World) -> Iterator[list[float]]:
    """The database answers and takes nothing; gives when it was asked to."""
    asked: list[float] = []
    refuses = True

    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("tocsin_write", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if refuses and writes else 'OFF'}")
        if writes:
            asked.append(world.clock.now())

    event.listen(world.core.store.engine, "begin", begin)
    yield asked
    refuses = False


def _used(world: World) -> float:
    with world.core.read() as db:
        return db.get_one(WebSession, accounts._token_hash("a token")).used_at


def test_who_is_signed_in_stays_so_while_the_database_refuses_to_renew_the_session(world: World, token: str) -> None:
    began = _used(world)
    with refusing(world) as asked:
        for _ in range(30):  # two minutes of a console
            world.clock.advance(4)
            assert accounts.operator_of(world.core, token) == "op1"
        assert len(asked) == 5, "a locked database is not waited for at every request"
        assert _used(world) == began
    world.clock.advance(10)
    assert accounts.operator_of(world.core, token) == "op1"
    assert _used(world) == world.clock.now()


def test_a_session_is_renewed_by_its_use_and_ends_without_it(world: World, token: str) -> None:
    for _ in range(3):
        world.clock.advance(accounts.SESSION_S - 1)
        assert accounts.operator_of(world.core, token) == "op1"
        assert _used(world) == world.clock.now()
    world.clock.advance(30)
    assert accounts.operator_of(world.core, token) == "op1"
    assert _used(world) == world.clock.now() - 30, "not at every request"
    with refusing(world):
        world.clock.advance(accounts.SESSION_S)
        assert accounts.operator_of(world.core, token) is None
    assert accounts.operator_of(world.core, "another") is None
