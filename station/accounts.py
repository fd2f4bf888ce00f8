"""Operators' accounts and sessions: argon2id for passwords, random tokens for sessions, stored hashed."""

import hashlib
import logging
import re
import secrets
from collections.abc import Iterable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from station.config import OperatorTable
from station.errors import CannotRun
from station.model import Operator, WebSession
from station.work import Core, Work

SESSION_S = 12 * 3600.0  # a shift; renewed by use
_RENEW_S = 60.0
_RENEW_AGAIN_S = 10.0  # after a renewal that the database refused
PASSWORD_MIN = 8
logger = logging.getLogger("station.accounts")

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")

_hasher = PasswordHasher()  # argon2id, RFC 9106's second recommended option: 64 MiB, about 0.1 s
# compared with when the name is unknown, so that the time taken does not tell which names exist
_NOBODY = _hasher.hash(secrets.token_hex(16))


class AccountError(CannotRun):
    """The account cannot be made; the text says what to do."""


def hash_password(password: str) -> str:
    """An encoded argon2id hash; takes about 0.1 s."""
    return _hasher.hash(password)


def _matches(encoded: str, password: str) -> bool:
    try:
        return _hasher.verify(encoded, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


def put(core: Core, name: str, password: str, who: str) -> None:
    """Make an operator, or give an existing one another password. Raises AccountError. Takes about 0.1 s."""
    if not _NAME.fullmatch(name):
        raise AccountError("a name has 1 to 64 letters, digits, or any of . _ @ -")
    if len(password) < PASSWORD_MIN:
        raise AccountError(f"a password has at least {PASSWORD_MIN} characters")
    encoded = hash_password(password)
    with core.work() as work:
        row = work.db.get(Operator, name)
        if row is None:
            work.db.add(Operator(name=name, password=encoded, made_at=work.now))
        else:
            row.password = encoded
            work.db.execute(delete(WebSession).where(WebSession.operator == name))
        work.audit(who, "user add" if row is None else "user password", f"operator:{name}")


def make_configured(core: Core, operators: Iterable[OperatorTable]) -> None:
    """Make the operators of the configuration file that are not there yet, or whose password was changed."""
    for operator in operators:
        with core.read() as db:
            row = db.get(Operator, operator.name)
            known = row is not None and _matches(row.password, operator.password)
        if not known:
            put(core, operator.name, operator.password, "configuration")


def sign_in(core: Core, name: str, password: str) -> str | None:
    """A new session's token, or None. Takes about 0.1 s: call it in a thread."""
    with core.read() as db:
        row = db.get(Operator, name[:64])
        encoded = row.password if row else _NOBODY
    good = _matches(encoded, password) and row is not None
    with core.work() as work:
        if not good:
            work.audit("?", "sign-in failed", f"operator:{name[:64]}")
            return None
        token = secrets.token_urlsafe(32)
        work.db.execute(delete(WebSession).where(WebSession.used_at < work.now - SESSION_S))
        work.db.add(WebSession(token_hash=_token_hash(token), operator=name, made_at=work.now, used_at=work.now))
        work.audit(name, "sign in", f"operator:{name}")
    return token


def sign_out(work: Work, token: str) -> None:
    """End a session."""
    row = work.db.get(WebSession, _token_hash(token))
    if row is not None:
        work.audit(row.operator, "sign out", f"operator:{row.operator}")
        work.db.delete(row)


def operator_of(core: Core, token: str) -> str | None:
    """Whose session this is, and None for an unknown or old one. Renews it now and then, where the database lets it: it
    is most when that refuses to write that operators must see what there is."""
    now = core.clock.now()
    key = _token_hash(token)
    with core.read() as db:
        row = db.get(WebSession, key)
        if row is None or now - row.used_at > SESSION_S:
            return None
        operator, used = row.operator, row.used_at
    if now - used <= _RENEW_S or now < core.renew_from:
        return operator
    # others do not wait for the same refusal: a locked database takes seconds to give it
    core.renew_from = now + _RENEW_AGAIN_S
    try:
        with core.work() as work:
            again = work.db.get(WebSession, key)
            if again is not None:
                again.used_at = now
    except SQLAlchemyError as error:
        logger.error("the session of %s was not renewed: %s", operator, getattr(error, "orig", error))
        return operator
    core.renew_from = 0.0
    return operator if again is not None else None


def holds(db: Session, token: str, now: float) -> bool:
    """Whether a session is still in force, for what goes on for hours; looking does not renew it."""
    row = db.get(WebSession, _token_hash(token))
    return row is not None and now - row.used_at <= SESSION_S


def _token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
