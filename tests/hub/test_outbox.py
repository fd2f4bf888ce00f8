"""Custody on disk: what apply() has taken survives any kill, and a damaged file stops nobody."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.outbox import SET_ASIDE_MAX, Key, Outbox, Row, StoreFailed
from protocol import kinds, relay


def row(number: int, text: str = "{}", position: int = 0, form: int = relay.EVENT, kind: int = kinds.SOS) -> Row:
    return Row(1, number.to_bytes(8, "big"), form, position or number, kind, b"payload", text, 5, "run")


def contents(path: Path) -> dict[Key, Row]:
    outbox = Outbox(path)
    try:
        return {r.key: r for r in outbox.load()}
    finally:
        outbox.close()


def copy_database(path: Path, folder: Path, log_bytes: int | None = None) -> Path:
    """What a kill would leave on disk: the file and the first bytes of its log."""
    shutil.copy(path, folder / path.name)
    log = path.with_name(path.name + "-wal")
    (folder / log.name).write_bytes(log.read_bytes()[:log_bytes])
    return folder / path.name


steps = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, 6), st.text(max_size=20)), max_size=3),
        st.lists(st.integers(1, 6), max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@given(steps, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_kill_at_any_byte_of_a_commit_leaves_all_of_it_or_nothing(
    changes: list[tuple[list[tuple[int, str]], list[int]]], at: float
) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        path = Path(one) / "outbox.db"
        outbox = Outbox(path)
        outbox.load()
        model: dict[Key, Row] = {}
        log = path.with_name("outbox.db-wal")
        for puts, deletes in changes:
            before, start = dict(model), log.stat().st_size
            rows = {row(n).key: row(n, text) for n, text in puts}
            for n in deletes:
                model.pop(row(n).key, None)
            model.update(rows)
            outbox.apply(rows.values(), [row(n).key for n in deletes])
        cut = start + round(at * (log.stat().st_size - start))
        killed = contents(copy_database(path, Path(other), cut))
        assert killed in (before, model)
        assert contents(copy_database(path, Path(other))) == model
        outbox.close()


CHILD = """
    import sys, pathlib
    from hub.outbox import Outbox, Row
    outbox = Outbox(pathlib.Path(sys.argv[1]))
    start = len(outbox.load())
    for n in range(start + 1, start + 10_000):
        ident = n.to_bytes(8, "big")
        gone = [(1, (n - 5).to_bytes(8, "big"), 1)] if n % 10 == 0 else []
        outbox.apply([Row(1, ident, 1, n, 1, b"x", "{}", 0, "")], gone)
        print(n, flush=True)
"""


def test_what_was_acknowledged_survives_a_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for run in range(4):
        known = len(contents(path)) if path.exists() else 0
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(11 + 7 * run):
            last = int(child.stdout.readline())
        child.kill()
        last = int((child.stdout.read().split() or [str(last)])[-1])
        child.wait()
        kept = {int.from_bytes(r.ident, "big") for r in contents(path).values()}
        assert last in kept
        gone = {n - 5 for n in range(10, last + 1, 10) if n > known}
        assert kept >= set(range(known + 1, last + 1)) - gone
        path.unlink()
        for beside in tmp_path.glob("outbox.db-*"):
            beside.unlink()


def test_a_fresher_copy_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.load()
    outbox.apply([row(1, "old"), row(2)], [])
    outbox.apply([row(1, "new")], [])
    assert [(r.position, r.facts) for r in outbox.load()] == [(1, "new"), (2, "{}")]


@pytest.mark.parametrize("garbage", [b"", b"not a database at all" * 500, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_set_aside_and_the_hub_goes_on(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(garbage)
    outbox = Outbox(path)
    assert outbox.load() == []
    outbox.apply([row(1)], [])
    assert len(outbox.load()) == 1
    if garbage:
        assert outbox.set_aside is not None
        assert outbox.set_aside.read_bytes() == garbage


def test_another_schema_under_our_name_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE outbox (something_else)")
    database.close()
    outbox = Outbox(path)
    assert outbox.load() == []
    assert outbox.set_aside is not None


def test_a_file_that_becomes_damaged_while_open_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.load()
    outbox.apply([row(n) for n in range(1, 50)], [])
    outbox.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    with pytest.raises(StoreFailed):
        outbox.apply([row(99)], [])
    outbox.apply([row(99)], [])
    assert [r.position for r in outbox.load()] == [99]


def test_damaged_files_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for _ in range(SET_ASIDE_MAX + 4):
        path.write_bytes(b"damaged" * 1000)
        outbox = Outbox(path)
        outbox.load()
        outbox.close()
        for beside in (path, path.with_name("outbox.db-wal"), path.with_name("outbox.db-shm")):
            beside.unlink(missing_ok=True)
    assert len(list(tmp_path.glob("*.damaged-*"))) == SET_ASIDE_MAX


def limited(code: str, path: Path) -> list[object]:
    """Run code in a process whose disk can be filled with full(True) and emptied with full(False)."""
    head = """
        import json, pathlib, resource, sys
        from hub.outbox import Outbox, Row, StoreFailed
        path = pathlib.Path(sys.argv[1])
        def full(yes):
            resource.setrlimit(resource.RLIMIT_FSIZE, (0 if yes else resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        def row(n):
            return Row(1, n.to_bytes(8, "big"), 1, n, 1, b"x", "{}", 0, "")
        said = []
    """
    program = textwrap.dedent(head) + textwrap.dedent(code) + "\nfull(False)\nprint(json.dumps(said))\n"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    result: list[object] = json.loads(done.stdout)
    return result


def test_a_full_disk_refuses_and_works_again_without_a_restart(tmp_path: Path) -> None:
    said = limited(
        """
        outbox = Outbox(path)
        outbox.load()
        outbox.apply([row(1)], [])
        full(True)
        for n in (2, 3):
            try:
                outbox.apply([row(n)], [])
                said.append("stored")
            except StoreFailed as failed:
                said.append("refused")
        full(False)
        outbox.apply([row(4)], [])
        said.append([r.position for r in outbox.load()])
        """,
        tmp_path / "outbox.db",
    )
    assert said == ["refused", "refused", [1, 4]]


def test_a_disk_that_is_full_at_the_start_is_no_reason_not_to_start(tmp_path: Path) -> None:
    said = limited(
        """
        full(True)
        outbox = Outbox(path)
        try:
            outbox.load()
        except StoreFailed:
            said.append("refused")
        full(False)
        said.append(len(outbox.load()))
        """,
        tmp_path / "outbox.db",
    )
    assert said == ["refused", 0]


def test_a_drill_can_fill_the_disk_of_a_running_process(tmp_path: Path) -> None:
    program = """
        import pathlib, sys
        for line in sys.stdin:
            try:
                pathlib.Path(sys.argv[1]).write_bytes(b"something")
                print("ok", flush=True)
            except OSError as problem:
                print(problem.errno, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "file")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    heard = []
    for limit in (None, 0, resource.RLIM_INFINITY):
        if limit is not None:
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        child.stdin.write("\n")
        child.stdin.flush()
        heard.append(child.stdout.readline().strip())
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert heard == ["ok", "27", "ok"]  # EFBIG, and no SIGXFSZ: Python ignores it
