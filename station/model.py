"""What the station remembers, as tables: SQLAlchemy 2, for SQLite and PostgreSQL.

Times are Unix seconds (float). Identities, boots and keys are bytes as on the wire. What must never be handled
twice has a primary key that says so: an identity, a packet of sound.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

SCHEMA = 2
NOT_READY = 0x100  # of an event's flags, the station's own: a self-test whose hub was not ready

# SQLite numbers rows by itself only for INTEGER keys
_Big = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Types of the columns by the annotations of the attributes."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        float: Double,
        str: Text,
        bytes: LargeBinary,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class Meta(Base):
    """Facts about this database: schema version, the station's key."""

    __tablename__ = "meta"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str]


class News(Base):
    """What one worker committed and the consoles of the others must hear of; kept for a minute."""

    __tablename__ = "news"

    id: Mapped[int] = mapped_column(_Big, primary_key=True, autoincrement=True)
    worker: Mapped[int]
    at: Mapped[float] = mapped_column(index=True)
    notices: Mapped[list[Any]]
    sounds: Mapped[list[Any]]  # capture, alarm, packet numbers
    closed: Mapped[list[Any]]


class Counter(Base):
    """How often something was dropped or refused, since the beginning."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[int] = mapped_column(_Big)


# --- people -----------------------------------------------------------------------------------------------------


class Wearer(Base):
    """Who wears a badge, and what an operator needs to know of them."""

    __tablename__ = "wearers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    phone: Mapped[str] = mapped_column(default="")
    description: Mapped[str] = mapped_column(default="")
    vehicle: Mapped[str] = mapped_column(default="")
    medical: Mapped[str] = mapped_column(default="")
    contact: Mapped[str] = mapped_column(default="")  # whom to ring, with number
    safe_word: Mapped[str] = mapped_column(default="")
    duress_word: Mapped[str] = mapped_column(default="")


class Operator(Base):
    """Somebody who may sign in."""

    __tablename__ = "operators"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    password: Mapped[str]  # argon2 encoded hash
    made_at: Mapped[float]
    ticked_at: Mapped[float | None]  # when one of their consoles last proved to be alive


class WebSession(Base):
    """A signed-in browser; the cookie's value is stored hashed only."""

    __tablename__ = "sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    operator: Mapped[str] = mapped_column(ForeignKey("operators.name"))
    made_at: Mapped[float]
    used_at: Mapped[float]


# --- devices ----------------------------------------------------------------------------------------------------


class Badge(Base):
    """A badge, and what was last heard of it."""

    __tablename__ = "badges"

    number: Mapped[int] = mapped_column(primary_key=True)
    wearer_id: Mapped[int] = mapped_column(ForeignKey("wearers.id"))
    made_at: Mapped[float]
    revoked_at: Mapped[float | None]
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    settings_version: Mapped[int] = mapped_column(default=0)
    settings_known: Mapped[int] = mapped_column(default=0)
    down_number: Mapped[int] = mapped_column(_Big, default=0)  # of the last message to it
    boot: Mapped[bytes | None]  # the current one
    battery: Mapped[int | None]
    heard_at: Mapped[float | None]
    heard_hub: Mapped[str | None] = mapped_column(String(16))
    incident: Mapped[bytes | None]  # which one it handles, as it last said; zeros: none
    tested_at: Mapped[float | None]

    wearer: Mapped[Wearer] = relationship(lazy="joined")


class BadgeKey(Base):
    """A root key, sealed. A badge that was provisioned again keeps the old ones for its old sound only."""

    __tablename__ = "badge_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    badge: Mapped[int] = mapped_column(ForeignKey("badges.number"), index=True)
    sealed: Mapped[bytes]
    made_at: Mapped[float]
    revoked_at: Mapped[float | None]


class Boot(Base):
    """One run of a badge: the highest uplink heard of it, which every answer echoes."""

    __tablename__ = "boots"

    badge: Mapped[int] = mapped_column(ForeignKey("badges.number"), primary_key=True)
    boot: Mapped[bytes] = mapped_column(primary_key=True)
    first_at: Mapped[float]
    uplink: Mapped[int] = mapped_column(_Big, default=-1)
    uplink_at: Mapped[float] = mapped_column(default=0.0)
    rotation: Mapped[int] = mapped_column(default=-1)
    rotation_at: Mapped[float] = mapped_column(default=0.0)
    status_seen: Mapped[bool] = mapped_column(default=False)


class Hub(Base):
    """A hub: pending until somebody accepts it."""

    __tablename__ = "hubs"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    key: Mapped[bytes]  # Ed25519
    box: Mapped[bytes | None]  # X25519
    first_at: Mapped[float]
    accepted_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    boot: Mapped[int] = mapped_column(_Big, default=-1)
    number: Mapped[int] = mapped_column(_Big, default=-1)
    down_number: Mapped[int] = mapped_column(_Big, default=0)
    keys_number: Mapped[int] = mapped_column(_Big, default=0)
    online: Mapped[bool] = mapped_column(default=False)
    state_boot: Mapped[int] = mapped_column(_Big, default=-1)
    heard_at: Mapped[float | None]
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    place: Mapped[dict[str, Any] | None]


class Link(Base):
    """A badge enrolled at a hub: the hub has their common key."""

    __tablename__ = "links"

    badge: Mapped[int] = mapped_column(ForeignKey("badges.number"), primary_key=True)
    hub: Mapped[str] = mapped_column(ForeignKey("hubs.id"), primary_key=True)
    made_at: Mapped[float]


class Hearing(Base):
    """When a hub last heard a badge: the ways by which something can be told to it."""

    __tablename__ = "hearings"

    badge: Mapped[int] = mapped_column(ForeignKey("badges.number"), primary_key=True)
    hub: Mapped[str] = mapped_column(ForeignKey("hubs.id"), primary_key=True)
    at: Mapped[float]
    via: Mapped[str] = mapped_column(String(16))
    rssi: Mapped[int | None]


class GroupKey(Base):
    """A council's key for beacons, sealed. The one with the highest number is in force."""

    __tablename__ = "group_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    sealed: Mapped[bytes]
    made_at: Mapped[float]


class Supervision(Base):
    """Something that somebody should look at: open until `until` is set."""

    __tablename__ = "supervision"
    __table_args__ = (Index(None, "what", "until"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(32))
    at: Mapped[float]
    until: Mapped[float | None]
    text: Mapped[str] = mapped_column(default="")


# --- what happened ----------------------------------------------------------------------------------------------


class Identity(Base):
    """An event that was taken, for ever: it outlives the purge of the event itself."""

    __tablename__ = "identities"

    badge: Mapped[int] = mapped_column(primary_key=True)
    ident: Mapped[bytes] = mapped_column(primary_key=True)
    received_at: Mapped[float]
    sealed: Mapped[bool]  # False: known by its beacon only, the envelope has not come yet


class BadgeEvent(Base):
    """What a badge told."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "badge", "kind", "received_at"),)

    badge: Mapped[int] = mapped_column(primary_key=True)
    ident: Mapped[bytes] = mapped_column(primary_key=True)
    kind: Mapped[int]
    incident: Mapped[bytes]
    body: Mapped[bytes]
    flags: Mapped[int]  # of protocol.events; NOT_READY
    battery: Mapped[int | None]
    raised_at: Mapped[float]
    uncertain: Mapped[bool]
    received_at: Mapped[float]
    via: Mapped[str] = mapped_column(String(16))
    hub: Mapped[str] = mapped_column(String(16))
    alarm_id: Mapped[int | None] = mapped_column(ForeignKey("alarms.id"), index=True)
    alarm_version: Mapped[int] = mapped_column(default=0)  # the version of the alarm that showed it first
    receipt: Mapped[int | None] = mapped_column(_Big)  # number of the message to the badge that first answered it
    answered_at: Mapped[float | None]  # when the badge was known to have that answer


class Sighting(Base):
    """A hub that brought an event: each one's facts are kept."""

    __tablename__ = "sightings"

    badge: Mapped[int] = mapped_column(primary_key=True)
    ident: Mapped[bytes] = mapped_column(primary_key=True)
    hub: Mapped[str] = mapped_column(String(16), primary_key=True)
    via: Mapped[str] = mapped_column(String(16), primary_key=True)
    at: Mapped[float]
    rssi: Mapped[int | None]
    place: Mapped[dict[str, Any] | None]


class Alarm(Base):
    """One incident as operators handle it. `level` is protocol.kinds' custody."""

    __tablename__ = "alarms"
    __table_args__ = (Index(None, "closed_at", "badge"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    badge: Mapped[int] = mapped_column(ForeignKey("badges.number"), index=True)
    wearer_id: Mapped[int] = mapped_column(ForeignKey("wearers.id"))
    kind: Mapped[str] = mapped_column(String(32))
    priority: Mapped[int]
    silent: Mapped[bool] = mapped_column(default=False)
    identity: Mapped[str]
    incident: Mapped[str] = mapped_column(index=True)
    ident: Mapped[bytes]  # of the incident, to tell the badge; zeros where it knows none
    visit_id: Mapped[int | None] = mapped_column(ForeignKey("visits.id"), index=True)
    level: Mapped[int]
    returned: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str | None] = mapped_column(ForeignKey("operators.name"), index=True)
    owner_since: Mapped[float | None]
    owner_saw: Mapped[int] = mapped_column(default=0)  # the version that its owner had on the screen
    raised_at: Mapped[float]
    uncertain: Mapped[bool] = mapped_column(default=False)
    received_at: Mapped[float]
    seen_at: Mapped[float | None]
    claimed_at: Mapped[float | None]
    listening_at: Mapped[float | None]
    closed_at: Mapped[float | None]
    cancelled_at: Mapped[float | None]
    escalated_at: Mapped[float | None]
    escalation: Mapped[str | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    welfare: Mapped[str | None] = mapped_column(String(32))
    via: Mapped[str] = mapped_column(String(16))
    hub: Mapped[str | None] = mapped_column(String(16))
    told_level: Mapped[int] = mapped_column(default=0)
    told_at: Mapped[float | None]
    version: Mapped[int] = mapped_column(default=0)
    missed_version: Mapped[int] = mapped_column(default=0)  # that showed the newest further miss of the station's clock

    wearer: Mapped[Wearer] = relationship(lazy="joined")


class AlarmIncident(Base):
    """Which alarm an incident's signals belong to; several incidents may be one alarm."""

    __tablename__ = "alarm_incidents"

    badge: Mapped[int] = mapped_column(primary_key=True)
    ident: Mapped[bytes] = mapped_column(primary_key=True)
    alarm_id: Mapped[int] = mapped_column(ForeignKey("alarms.id"), index=True)


class Entry(Base):
    """A line of an alarm's timeline."""

    __tablename__ = "timeline"

    id: Mapped[int] = mapped_column(primary_key=True)
    alarm_id: Mapped[int] = mapped_column(ForeignKey("alarms.id"), index=True)
    at: Mapped[float]
    what: Mapped[str] = mapped_column(String(32))
    who: Mapped[str | None]
    text: Mapped[str] = mapped_column(default="")


class StepDone(Base):
    """A step of the agreed protocol that somebody has done."""

    __tablename__ = "steps_done"

    alarm_id: Mapped[int] = mapped_column(ForeignKey("alarms.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    who: Mapped[str]


class Audit(Base):
    """The append-only log: each row's hash covers the row and the hash before it."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    who: Mapped[str]
    what: Mapped[str] = mapped_column(String(64))
    about: Mapped[str]
    detail: Mapped[str]  # JSON text, exactly as hashed
    hash: Mapped[bytes]


# --- visits -----------------------------------------------------------------------------------------------------


class Visit(Base):
    """A visit with its timer. Intervals are seconds."""

    __tablename__ = "visits"
    __table_args__ = (Index(None, "ended_at", "due_at"), Index(None, "badge", "ref"))

    id: Mapped[int] = mapped_column(primary_key=True)
    badge: Mapped[int] = mapped_column(ForeignKey("badges.number"), index=True)
    origin: Mapped[str] = mapped_column(String(16))
    ref: Mapped[bytes]  # identity of the event that started it on the badge, or zeros
    place: Mapped[str] = mapped_column(default="")
    company: Mapped[str] = mapped_column(default="")
    note: Mapped[str] = mapped_column(default="")
    audio: Mapped[bool] = mapped_column(default=False)
    interval: Mapped[float]
    grace: Mapped[float]
    starts_at: Mapped[float]
    started_at: Mapped[float | None]
    marked_at: Mapped[float | None]  # what the running interval counts from; older marks change nothing
    due_at: Mapped[float]
    armed_at: Mapped[float | None]
    told_at: Mapped[float | None]  # when the wearer was told that the badge was silent at the start
    orders: Mapped[int] = mapped_column(default=0)  # how often its times are still to be repeated to the badge
    overdue_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    cancelled: Mapped[bool] = mapped_column(default=False)
    alarm_id: Mapped[int | None] = mapped_column(Integer, index=True)


class Mark(Base):
    """A check-in or an extension of a visit."""

    __tablename__ = "visit_marks"

    id: Mapped[int] = mapped_column(primary_key=True)
    visit_id: Mapped[int] = mapped_column(ForeignKey("visits.id"), index=True)
    at: Mapped[float]
    what: Mapped[str] = mapped_column(String(16))
    who: Mapped[str | None]


# --- sound ------------------------------------------------------------------------------------------------------


class Capture(Base):
    """One capture of a badge's microphone."""

    __tablename__ = "captures"
    __table_args__ = (Index(None, "badge", "boot", "number", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    badge: Mapped[int] = mapped_column(ForeignKey("badges.number"))
    boot: Mapped[bytes]
    number: Mapped[int]
    key_id: Mapped[int] = mapped_column(ForeignKey("badge_keys.id"))
    alarm_id: Mapped[int | None] = mapped_column(ForeignKey("alarms.id"), index=True)  # where it is heard live
    incident: Mapped[bytes | None]  # None: its AUDIO_START has not come yet
    reason: Mapped[str] = mapped_column(String(32), default="")
    first_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    made: Mapped[int | None]  # packets, as the badge counted them at the end


class AlarmCapture(Base):
    """Which captures an alarm's archive holds. One that went on into a second alarm belongs to both."""

    __tablename__ = "alarm_captures"

    alarm_id: Mapped[int] = mapped_column(ForeignKey("alarms.id"), primary_key=True)
    capture_id: Mapped[int] = mapped_column(ForeignKey("captures.id"), primary_key=True)


class Packet(Base):
    """One packet of sound as the badge sealed it."""

    __tablename__ = "packets"

    capture_id: Mapped[int] = mapped_column(ForeignKey("captures.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    sealed: Mapped[bytes]
