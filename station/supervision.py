"""What went quiet or runs low: open entries that somebody should look at, and their end.

Only what is authentic counts as a sign of life. In a visit 90 s of silence are a loss (modelled on EN 50136),
outside one much more.
"""

from sqlalchemy import func, select

from station import views
from station.clock import STEP_S
from station.model import Badge, Hub, Link, Supervision, Visit
from station.work import Work

LOW, CRITICAL = 20, 10  # percent
OFF_DUTY = "off_duty"  # a badge said that it goes to sleep: its silence is no loss
RESTARTED = "restarted"  # and nobody had wanted it to
RESTARTED_SHOWN = 86400.0  # seconds
STATION, CLOCK = "station", "clock_stepped"  # the machine's clock was set anew; shown as long as a restart
REFUSED = "settings_refused"
NOT_READY = "not_ready"  # a self-test found something at its hub by which an alarm might not get through
AWAKE_AFTER = 6.0  # seconds that a badge goes on talking after it said that it goes to sleep
_RECOVERED = 5  # percent above the threshold before an entry ends, so that a tired battery does not flicker


def raise_entry(work: Work, what: str, state: str, text: str) -> None:
    """Open an entry, unless the same one is open."""
    if _find(work, what, state) is not None:
        return
    row = Supervision(what=what, state=state, at=work.now, text=text)
    work.db.add(row)
    work.troubles[what][state] = row
    work.notice("device", views.supervision(row))


def settle(work: Work, what: str, state: str) -> None:
    """End an entry, if it is open."""
    row = _find(work, what, state)
    if row is not None:
        row.until = work.now
        del work.troubles[what][state]
        work.notice("device", views.supervision(row))


def _find(work: Work, what: str, state: str) -> Supervision | None:
    # every uplink asks for several states of the same device: one look for all of them
    if what not in work.troubles:
        with work.db.no_autoflush:  # none of this device is waiting to be written: it would be known here
            rows = work.db.scalars(select(Supervision).where(Supervision.what == what, Supervision.until.is_(None)))
            work.troubles[what] = {row.state: row for row in rows}
    return work.troubles[what].get(state)


def battery(work: Work, what: str, percent: int) -> None:
    """A device told how full its battery is."""
    for state, limit in (("battery_low", LOW), ("battery_critical", CRITICAL)):
        if percent <= limit:
            raise_entry(work, what, state, f"battery at {percent} %")
        elif percent >= limit + _RECOVERED:
            settle(work, what, state)


def badge_heard(work: Work, badge: Badge, hub: Hub, at: float) -> None:
    """A badge gave a sign of life."""
    badge.heard_at = max(badge.heard_at or 0.0, at)
    badge.heard_hub = hub.id
    settle(work, f"badge:{badge.number}", "lost")
    asleep = _find(work, f"badge:{badge.number}", OFF_DUTY)
    if asleep is not None and at > asleep.at + AWAKE_AFTER:
        settle(work, f"badge:{badge.number}", OFF_DUTY)


def hub_heard(work: Work, hub: Hub) -> None:
    """A hub gave a sign of life."""
    hub.heard_at = work.now
    settle(work, f"hub:{hub.id}", "lost")


def clock_stepped(work: Work, step: float) -> None:
    """The machine's clock was set anew by so many seconds; negative: back."""
    settle(work, STATION, CLOCK)
    if step < 0:
        text = (
            f"the machine's clock was set back by {-step:.0f} s: timers go on as if it had not been, and times are "
            "shown ahead of it until the station is restarted; restart it while no visit runs"
        )
    else:
        text = f"the machine's clock went ahead by {step:.0f} s at once: visits and alarms look older than they are"
    raise_entry(work, STATION, CLOCK, text)
    work.audit("station", "clock set", STATION, seconds=round(step))


def clock_at_start(work: Work) -> None:
    """What is stored lies in the future: the clock was set back while the station was down, or before it went down."""
    newest = max(work.db.scalar(select(func.max(column))) or 0.0 for column in (Badge.heard_at, Visit.marked_at))
    ahead = newest - work.now
    if ahead <= STEP_S:
        return
    settle(work, STATION, CLOCK)
    text = (
        f"what was stored last lies {ahead:.0f} s ahead of the machine's clock: it was set back. Visits that run since "
        "before are raised so much too late: end them and begin them anew, or ring their wearers in time"
    )
    raise_entry(work, STATION, CLOCK, text)
    work.audit("station", "clock behind", STATION, seconds=round(ahead))


def watch(work: Work) -> None:
    """Open entries for what has been silent too long."""
    limits = work.core.config.supervision
    out = set(work.db.scalars(select(Visit.badge).where(Visit.started_at.is_not(None), Visit.ended_at.is_(None))))
    needed = set(work.db.scalars(select(Link.hub).where(Link.badge.in_(out)))) if out else set()
    # while the station was down it heard nobody
    since = work.core.started_at
    for row in work.db.scalars(
        select(Supervision).where(
            Supervision.state.in_((RESTARTED, CLOCK)),
            Supervision.until.is_(None),
            Supervision.at < work.now - RESTARTED_SHOWN,
        )
    ):
        settle(work, row.what, row.state)
    for badge in work.db.scalars(select(Badge).where(Badge.revoked_at.is_(None))):
        limit = limits.lost if badge.number in out else limits.lost_idle
        if _find(work, f"badge:{badge.number}", OFF_DUTY) is not None and badge.number not in out:
            continue
        if badge.heard_at is not None and work.now - max(badge.heard_at, since) > limit:
            where = "in a visit" if badge.number in out else "outside a visit"
            raise_entry(work, f"badge:{badge.number}", "lost", f"nothing heard for {limit:.0f} s, {where}")
    for hub in work.db.scalars(select(Hub).where(Hub.accepted_at.is_not(None), Hub.revoked_at.is_(None))):
        limit = limits.lost if hub.id in needed else limits.lost_idle
        if hub.heard_at is not None and work.now - max(hub.heard_at, since) > limit:
            raise_entry(work, f"hub:{hub.id}", "lost", f"nothing heard for {limit:.0f} s")
