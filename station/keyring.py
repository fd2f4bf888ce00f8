"""Badges' and council's keys: stored sealed, opened when needed, remembered because they never change."""

import os

from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.beacon import Group
from protocol.keys import BadgeKeys
from station.model import BadgeKey, GroupKey
from station.vault import Vault

ACCEPTED = 90 * 86400.0  # seconds for which a group key that was replaced still routes beacons


class Keyring:
    """Opens what the vault sealed. Rows are immutable, so remembering them is a cache and not a state."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._badges: dict[int, BadgeKeys] = {}
        self._groups: dict[int, bytes] = {}
        self._tags: dict[int, int] = {}

    def of_badge(self, db: Session, badge: int) -> tuple[int, BadgeKeys] | None:
        """Row number and keys in force for a badge; None for an unknown or revoked one.

        Looked up once in a transaction: who changes keys has locked the badge's row first.
        """
        known: dict[int, tuple[int, BadgeKeys] | None] = db.info.setdefault("keys in force", {})
        if badge not in known:
            with db.no_autoflush:  # store_root() and revoke() have written theirs
                row = db.scalar(
                    select(BadgeKey)
                    .where(BadgeKey.badge == badge, BadgeKey.revoked_at.is_(None))
                    .order_by(BadgeKey.id.desc())
                    .limit(1)
                )
            known[badge] = (row.id, self._open(row)) if row else None
        return known[badge]

    def by_row(self, db: Session, row_id: int) -> BadgeKeys:
        """The keys of a row, also of a revoked one: old sound is opened with it."""
        row = db.get_one(BadgeKey, row_id)
        return self._open(row)

    def _open(self, row: BadgeKey) -> BadgeKeys:
        keys = self._badges.get(row.id)
        if keys is None:
            keys = BadgeKeys(self._vault.open_sealed(f"badge {row.badge}", row.sealed))
            self._badges[row.id] = keys
        return keys

    def store_root(self, db: Session, badge: int, root: bytes, now: float) -> BadgeKeys:
        """Make `root` (32 bytes) the badge's key from now on and revoke what was before."""
        self.revoke(db, badge, now)
        row = BadgeKey(badge=badge, sealed=self._vault.seal(f"badge {badge}", root), made_at=now)
        db.add(row)
        db.flush()
        db.info.pop("keys in force", None)
        return self._open(row)

    def revoke(self, db: Session, badge: int, now: float) -> None:
        """No key of the badge is in force any more."""
        for row in db.scalars(select(BadgeKey).where(BadgeKey.badge == badge, BadgeKey.revoked_at.is_(None))):
            row.revoked_at = now
        db.flush()
        db.info.pop("keys in force", None)

    def groups(self, db: Session, now: float) -> list[tuple[int, bytes]]:
        """Group keys with their numbers, the newest first; the first one is made when there is none.

        One that was replaced is accepted for ACCEPTED more: badges and hubs that were away learn the new one late.
        """
        rows = list(db.scalars(select(GroupKey).order_by(GroupKey.id.desc())))
        if not rows:
            key = os.urandom(16)
            row = GroupKey(sealed=self._vault.seal("group key", key), made_at=now)
            db.add(row)
            db.flush()
            rows = [row]
        found = []
        replaced = now
        for row in rows:
            if replaced < now - ACCEPTED:
                break
            replaced = row.made_at
            if row.id not in self._groups:
                self._groups[row.id] = self._vault.open_sealed("group key", row.sealed)
            found.append((row.id, self._groups[row.id]))
        return found

    def new_group(self, db: Session, now: float) -> int:
        """Make a new group key, which is in force from now on; its number."""
        row = GroupKey(sealed=self._vault.seal("group key", os.urandom(16)), made_at=now)
        db.add(row)
        db.flush()
        return row.id

    def tag(self, db: Session, now: float) -> int:
        """The tag (protocol.beacon) of the group key in force."""
        number, key = self.groups(db, now)[0]
        if number not in self._tags:
            self._tags[number] = Group(key).tag
        return self._tags[number]

    def beacons(self, db: Session, now: float) -> list[Group]:
        """The same as protocol.beacon takes them."""
        return [Group(key) for _, key in self.groups(db, now)]
