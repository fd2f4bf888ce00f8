"""The JSON interface under /api, and the requests that pages and programs share. See docs/station-api.md."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from protocol import kinds
from station import alarms, audit, enrol, views, visits
from station.console.answers import JSONResponse
from station.console.gate import Principal
from station.model import (
    Alarm,
    Audit,
    Badge,
    BadgeEvent,
    Counter,
    Hub,
    StepDone,
    Supervision,
    Visit,
)
from station.plain import clean
from station.queueing import open_first
from station.steps import steps_for
from station.work import Core, Work

Json = dict[str, Any]
CLOSED_MAX = 200  # closed alarms and ended visits in one answer
PROTECTED_S = 30.0  # a badge that was heard so lately counts as protected


def core_of(request: Request) -> Core:
    """The station's core."""
    core: Core = request.app.state.core
    return core


def principal_of(request: Request) -> Principal:
    """Who asks."""
    principal: Principal = request.state.principal
    return principal


def wants_json(request: Request) -> bool:
    """A program, or a script of a page, rather than a form."""
    return "application/json" in request.headers.get("accept", "")


async def body_of(request: Request) -> Json:
    """The fields of a form or of a JSON object. Raises alarms.Invalid."""
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            data = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError):
            raise alarms.Invalid("the body is not JSON") from None
        if not isinstance(data, dict):
            raise alarms.Invalid("the body must be a JSON object")
    else:
        data = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    fields: Json = clean(data)
    return fields


async def reading(request: Request, build: Callable[[Session, float], Json]) -> JSONResponse:
    """Answer with what `build` reads, and when."""
    core = core_of(request)

    def work() -> Json:
        with core.read() as db:
            now = core.clock.now()
            return {**build(db, now), "at": now}

    return JSONResponse(await run_in_threadpool(work))


async def working(request: Request, change: Callable[[Work], Json]) -> Json:
    """Change something in one transaction; gives what is answered."""

    def run() -> Json:
        with core_of(request).work() as work:
            return change(work)

    return await run_in_threadpool(run)


# --- errors -----------------------------------------------------------------------------------------------------


def refusal(error: Exception) -> tuple[int, Json]:
    """Status and body for what the domain refuses."""
    if isinstance(error, alarms.Refused):
        return 409, {"error": str(error), "owner": error.owner}
    return 400, {"error": str(error)}


async def on_refusal(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for Refused and Invalid, where no page shows them better."""
    status, body = refusal(error)
    return JSONResponse(body, status)


def missing(what: str) -> JSONResponse:
    """404."""
    return JSONResponse({"error": f"there is no such {what}"}, 404)


# --- reading ----------------------------------------------------------------------------------------------------


def all_alarms(db: Session, state: str) -> list[Json]:
    """ALARMs in queue order, then closed ones, the newest first."""
    found: list[Json] = []
    if state in ("open", "all"):
        rows = db.scalars(select(Alarm).where(Alarm.closed_at.is_(None)).order_by(*open_first()))
        found += [views.alarm(db, row) for row in rows]
    if state in ("closed", "all"):
        closed = select(Alarm).where(Alarm.closed_at.is_not(None)).order_by(Alarm.closed_at.desc())
        found += [views.alarm(db, row) for row in db.scalars(closed.limit(CLOSED_MAX))]
    return found


def alarm_page(db: Session, alarm: Alarm) -> Json:
    """An alarm with its timeline and the steps of its protocol."""
    steps: list[Json] = [{"text": text, "done_at": None, "by": None} for text in steps_for(alarm.kind, alarm.wearer)]
    done = db.scalars(select(StepDone).where(StepDone.alarm_id == alarm.id).order_by(StepDone.number))
    for row in done:
        if row.number and row.number % len(steps) == 0:
            # a further round through the protocol
            steps = [{**step, "done_at": None, "by": None} for step in steps]
        steps[row.number % len(steps)].update(done_at=row.at, by=row.who)
    return {"alarm": views.alarm(db, alarm), "timeline": views.timeline(db, alarm.id), "steps": steps}


async def get_alarms(request: Request) -> Response:
    """GET /api/alarms."""
    state = request.query_params.get("state", "all")
    if state not in ("open", "closed", "all"):
        return JSONResponse({"error": "state must be open, closed or all"}, 400)
    return await reading(request, lambda db, _: {"alarms": all_alarms(db, state)})


async def get_alarm(request: Request) -> Response:
    """GET /api/alarms/{id}."""

    def build(db: Session, _: float) -> Json:
        alarm = db.get(Alarm, request.path_params["id"])
        return alarm_page(db, alarm) if alarm is not None else {}

    response = await reading(request, build)
    return response if b'"alarm"' in response.body else missing("alarm")


def all_visits(db: Session, state: str) -> list[Json]:
    """VISITs: those in progress by their due time, then ended ones, the newest first."""
    rows = list(db.scalars(select(Visit).where(Visit.ended_at.is_(None)).order_by(Visit.due_at)))
    if state == "all":
        ended = select(Visit).where(Visit.ended_at.is_not(None)).order_by(Visit.ended_at.desc())
        rows += db.scalars(ended.limit(CLOSED_MAX))
    return [views.visit(db, row) for row in rows]


async def get_visits(request: Request) -> Response:
    """GET /api/visits."""
    state = request.query_params.get("state", "all")
    return await reading(request, lambda db, _: {"visits": all_visits(db, state)})


def all_badges(db: Session, now: float) -> list[Json]:
    """Badges by number."""
    return [views.badge(db, row, now - PROTECTED_S) for row in db.scalars(select(Badge).order_by(Badge.number))]


async def get_badges(request: Request) -> Response:
    """GET /api/badges."""
    return await reading(request, lambda db, now: {"badges": all_badges(db, now)})


def all_hubs(db: Session) -> list[Json]:
    """Hubs, those that wait first."""
    rows = db.scalars(select(Hub).order_by(Hub.accepted_at.is_not(None), Hub.first_at))
    return [views.hub(db, row) for row in rows]


async def get_hubs(request: Request) -> Response:
    """GET /api/hubs."""
    return await reading(request, lambda db, _: {"hubs": all_hubs(db)})


def all_tests(db: Session) -> list[Json]:
    """Self-tests, the newest first."""
    rows = db.scalars(
        select(BadgeEvent)
        .where(BadgeEvent.kind == kinds.TEST)
        .order_by(BadgeEvent.received_at.desc())
        .limit(CLOSED_MAX)
    )
    return [views.test(db, row) for row in rows]


async def get_tests(request: Request) -> Response:
    """GET /api/tests."""
    return await reading(request, lambda db, _: {"tests": all_tests(db)})


def all_supervision(db: Session, only_open: bool = False, own: Json | None = None) -> list[Json]:
    """Entries of supervision, the newest first; before them the station's own, which no database holds yet."""
    query = select(Supervision).order_by(Supervision.at.desc()).limit(CLOSED_MAX)
    if only_open:
        query = query.where(Supervision.until.is_(None))
    return ([own] if own else []) + [views.supervision(row) for row in db.scalars(query)]


async def get_supervision(request: Request) -> Response:
    """GET /api/supervision."""
    return await reading(request, lambda db, _: {"supervision": all_supervision(db, own=core_of(request).intake.entry)})


async def get_audit(request: Request) -> Response:
    """GET /api/audit."""
    after = request.query_params.get("after", "0")
    if not after.isdecimal():
        return JSONResponse({"error": "after must be a number"}, 400)

    def build(db: Session, _: float) -> Json:
        rows = db.scalars(select(Audit).where(Audit.id > int(after)).order_by(Audit.id).limit(1000))
        return {
            "audit": [
                {
                    "id": row.id,
                    "at": row.at,
                    "who": row.who,
                    "what": row.what,
                    "about": row.about,
                    "detail": json.loads(row.detail),
                    "hash": row.hash.hex(),
                }
                for row in rows
            ]
        }

    return await reading(request, build)


async def verify_audit(request: Request) -> Response:
    """GET /api/audit/verify."""

    def build(db: Session, _: float) -> Json:
        verdict = audit.verify(db)
        return {
            "whole": verdict.whole,
            "rows": verdict.rows,
            "head": verdict.head,
            "broken_at": verdict.broken_at,
        }

    return await reading(request, build)


async def health(request: Request) -> Response:
    """GET /api/health: without sign-in only whether all is well."""
    station = request.app.state.station
    connected, entry = station.bus.connected, station.core.intake.entry
    well = connected and entry is None

    def build(db: Session, _: float) -> Json:
        if principal_of(request) is None:
            return {"ok": well}
        counters = {row.name: row.value for row in db.scalars(select(Counter))}
        return {
            "ok": well,
            "broker": connected,
            "problem": (entry["text"] if entry else "") or station.bus.problem,
            "queue": station.worker.waiting,
            "dropped_messages": station.bus.dropped,
            "counters": counters,
        }

    response = await reading(request, build)
    response.status_code = 200 if well else 503
    return response


# --- changing ---------------------------------------------------------------------------------------------------


async def post_badge(request: Request) -> Response:
    """POST /api/badges."""
    given, who = await body_of(request), principal_of(request).name
    return JSONResponse(await working(request, lambda work: enrol.provision(work, who, given)))


async def post_badge_act(request: Request) -> Response:
    """POST /api/badges/{badge}/settings and /revoke."""
    given, who, act = await body_of(request), principal_of(request).name, request.path_params["act"]

    def change(work: Work) -> Json:
        badge = work.badge(request.path_params["badge"])
        if badge is None:
            return {}
        if act == "settings":
            enrol.change_settings(work, who, badge, given)
        else:
            enrol.revoke_badge(work, who, badge)
        work.db.flush()
        return {"badge": views.badge(work.db, badge, work.now - PROTECTED_S)}

    answer = await working(request, change)
    return JSONResponse(answer) if answer else missing("badge")


async def post_group_key(request: Request) -> Response:
    """POST /api/group-key: a new one for beacons."""
    await body_of(request)
    who = principal_of(request).name
    return JSONResponse(await working(request, lambda work: {"group_key": enrol.new_group_key(work, who)}))


async def post_hub_act(request: Request) -> Response:
    """POST /api/hubs/{hub}/accept and /revoke."""
    given, who = await body_of(request), principal_of(request).name
    name, act = request.path_params["hub"], request.path_params["act"]

    def change(work: Work) -> Json:
        if act == "accept":
            hub = enrol.accept(work, who, name, given)
        else:
            found = work.hub(name)
            if found is None:
                return {}
            hub = found
            enrol.revoke_hub(work, who, hub)
        work.db.flush()
        return {"hub": views.hub(work.db, hub)}

    answer = await working(request, change)
    return JSONResponse(answer) if answer else missing("hub")


async def plan_visit(request: Request, given: Mapping[str, Any]) -> Json:
    """Plan a visit for a badge. Raises alarms.Invalid."""
    who = principal_of(request).name
    number = str(given.get("badge", ""))

    def change(work: Work) -> Json:
        badge = work.badge(int(number)) if number.isdecimal() and len(number) <= 8 else None
        if badge is None or badge.revoked_at is not None:
            raise alarms.Invalid("badge must be the number of a badge that is in use")
        visit = visits.plan(work, who, badge, dict(given))
        work.db.flush()
        return {"visit": views.visit(work.db, visit)}

    return await working(request, change)


async def act_on_visit(request: Request) -> Json:
    """End, extend or check in for a wearer on the telephone; empty when there is no such visit."""
    who, act = principal_of(request).name, request.path_params["act"]

    def change(work: Work) -> Json:
        visit = work.db.get(Visit, request.path_params["id"])
        if visit is None:
            return {}
        visits.by_operator(work, who, visit, act)
        work.db.flush()
        return {"visit": views.visit(work.db, visit)}

    return await working(request, change)
