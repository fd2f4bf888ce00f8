"""The append-only log: who did what when, each row bound to the one before it by SHA-256.

A row is written in the transaction of the act itself, so that neither exists without the other. Changing, removing
or inserting a row breaks the chain from there on; `verify` says where.
"""

import json
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import select
from sqlalchemy.orm import Session

from station.model import Audit

STATION = "station"  # who, where no person acted
RECENT = 2000
_FIRST = bytes(32)


def _hash(before: bytes, at: float, who: str, what: str, about: str, detail: str) -> bytes:
    text = json.dumps([round(at, 6), who, what, about, detail], ensure_ascii=False, separators=(",", ":"))
    return sha256(before + text.encode()).digest()


def append(db: Session, at: float, who: str, what: str, about: str, **detail: object) -> None:
    """Add a row: `about` names the thing ("alarm:7"), `detail` is small and holds no keys and no speech."""
    last = db.scalar(select(Audit).order_by(Audit.id.desc()).limit(1).with_for_update())
    at = round(at, 6)
    text = json.dumps(detail, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    digest = _hash(last.hash if last else _FIRST, at, who, what, about, text)
    # numbered without holes, so that rows cut off in the middle show as well
    db.add(Audit(id=last.id + 1 if last else 1, at=at, who=who, what=what, about=about, detail=text, hash=digest))
    db.flush()


def has(db: Session, who: str, what: str, part: str) -> bool:
    """Whether there is such a row already, with this in its details: for what may arrive twice."""
    rows = select(Audit.id).where(Audit.who == who, Audit.what == what, Audit.detail.contains(part)).limit(1)
    return db.scalar(rows) is not None


def recent(db: Session, what: str, about: str, part: str) -> list[Audit]:
    """The rows of this with `part` in their details, oldest first, among the latest RECENT rows of the log."""
    newest = db.scalar(select(Audit.id).order_by(Audit.id.desc()).limit(1)) or 0
    rows = select(Audit).where(
        Audit.id > newest - RECENT, Audit.what == what, Audit.about == about, Audit.detail.contains(part)
    )
    return list(db.scalars(rows.order_by(Audit.id)))


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: number of rows, head of the chain in hex, and the first broken row."""

    rows: int
    head: str
    broken_at: int | None

    @property
    def whole(self) -> bool:
        """Nothing was changed."""
        return self.broken_at is None


def verify(db: Session) -> Verdict:
    """Walk the whole chain."""
    before, rows = _FIRST, 0
    for row in db.scalars(select(Audit).order_by(Audit.id).execution_options(yield_per=500)):
        rows += 1
        if row.id != rows or row.hash != _hash(before, row.at, row.who, row.what, row.about, row.detail):
            return Verdict(rows, before.hex(), row.id)
        before = row.hash
    return Verdict(rows, before.hex(), None)
