"""The pages: queue, alarm, visits, devices, sign-in. Rendered by Jinja2 from the same data as the JSON interface."""

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from station import accounts, alarms
from station.console.answers import HTMLResponse, JSONResponse
from station.console.api import (
    Json,
    act_on_visit,
    alarm_page,
    all_alarms,
    all_badges,
    all_hubs,
    all_supervision,
    all_tests,
    all_visits,
    body_of,
    core_of,
    missing,
    plan_visit,
    principal_of,
    refusal,
    wants_json,
)
from station.console.gate import COOKIE, session_token
from station.model import Alarm, Badge, Hub, Supervision, Visit

DAY_S = 86_400.0
SHOWN_CLOSED = 50

HERE = Path(__file__).parent

KIND_WORDS = {
    "sos": "SOS",
    "duress": "Duress",
    "missed_check_in": "Missed check-in",
    "lanyard": "Lanyard pulled",
    "fall": "Fall",
    "loss_of_contact": "Loss of contact",
    "check_in": "Check-in",
    "cancel": "Cancel",
}
LEVEL_WORDS = {
    "received": "Waiting for an operator",
    "claimed": "An operator is handling it",
    "listening": "An operator has heard the room",
    "closed": "Closed",
}
TOLD_WORDS = {
    None: "The badge has not confirmed anything yet: the wearer may not know that we have it",
    "received": "The badge knows that the station has the alarm",
    "claimed": "The badge knows that an operator is with the wearer",
    "listening": "The badge knows that an operator listens",
    "closed": "The badge knows that the alarm is closed",
}
ENTRY_WORDS = {
    "raised": "Alarm raised",
    "signal": "Signal",
    "cancelled": "Cancelled by the wearer",
    "seen": "Shown on a console",
    "claimed": "Claimed",
    "taken_over": "Taken over",
    "listening": "First sound heard",
    "listen_in": "Began to listen",
    "listen_out": "Stopped listening",
    "step": "Step done",
    "note": "Note",
    "escalated": "Escalated",
    "second_path": "Told by text message",
    "told": "Badge confirms",
    "closed": "Closed",
}
VIA_WORDS = {
    "connection": "connection",
    "beacon": "beacon (no connection)",
    "second_path": "second path",
    "station": "the station's own timer",
}


# --- how values are written -------------------------------------------------------------------------------------


def clock_time(at: float | None) -> str:
    """14:03:21, local time of the station."""
    return "–" if at is None else time.strftime("%H:%M:%S", time.localtime(at))


def date_time(at: float | None) -> str:
    """21 Nov 14:03."""
    return "–" if at is None else time.strftime("%-d %b %H:%M", time.localtime(at))


def span(seconds: float | None) -> str:
    """4 s, 3 min 10 s, 2 h 5 min, 3 d."""
    if seconds is None:
        return "–"
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d"


def minutes(value: float) -> str:
    """30 min, or 12 s for a drill's short visits."""
    return f"{value * 60:.0f} s" if value < 1 else f"{value:g} min"


def environment() -> Environment:
    """Jinja2 as the pages use it: everything is escaped, and a misspelt name is an error."""
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(clock_time=clock_time, date_time=date_time, span=span, minutes=minutes)
    env.globals.update(
        kinds=KIND_WORDS,
        levels=LEVEL_WORDS,
        told_words=TOLD_WORDS,
        entries=ENTRY_WORDS,
        vias=VIA_WORDS,
        outcomes=alarms.OUTCOMES,
        welfares=alarms.WELFARE,
    )
    return env


async def _page(
    request: Request, template: str, build: Callable[[Session, float], Json], status: int = 200
) -> HTMLResponse:
    core, env = core_of(request), request.app.state.templates
    principal = principal_of(request)

    def render() -> str:
        with core.read() as db:
            now = core.clock.now()
            entry = core.intake.entry
            common = {
                "station": core.config.station.name,
                "operator": principal.name,
                "now": now,
                "path": request.url.path,
                "waiting": db.scalar(select(func.count()).where(Alarm.closed_at.is_(None), Alarm.owner.is_(None))),
                "troubles": (db.scalar(select(func.count()).where(Supervision.until.is_(None))) or 0)
                + (entry is not None),
                "receiving": request.app.state.station.bus.connected,
                "taking": entry is None,
            }
            text: str = env.get_template(template).render({**common, **build(db, now)})
            return text

    return HTMLResponse(await run_in_threadpool(render), status)


# --- pages ------------------------------------------------------------------------------------------------------


async def queue(request: Request) -> Response:
    """GET /."""

    def build(db: Session, now: float) -> Json:
        # the rows alone: an ALARM each would read all their signals and sound whenever anything happens
        closed = select(Alarm).where(Alarm.closed_at > now - DAY_S).order_by(Alarm.closed_at.desc()).limit(SHOWN_CLOSED)
        running = db.scalar(select(func.count()).where(Visit.started_at.is_not(None), Visit.ended_at.is_(None)))
        badges = all_badges(db, now)
        return {
            "alarms": all_alarms(db, "open"),
            "closed": list(db.scalars(closed)),
            "closed_in_all": db.scalar(select(func.count()).where(Alarm.closed_at > now - DAY_S)),
            "running": running,
            "badges": len(badges),
            "protected": sum(b["protected"] for b in badges),
            "supervision": all_supervision(db, only_open=True, own=core_of(request).intake.entry),
        }

    return await _page(request, "queue.html", build)


def _alarm_data(db: Session, alarm: Alarm, now: float) -> Json:
    badge = db.get_one(Badge, alarm.badge)
    visit = db.get(Visit, alarm.visit_id) if alarm.visit_id is not None else None
    others = db.scalars(
        select(Alarm).where(Alarm.badge == alarm.badge, Alarm.closed_at.is_(None), Alarm.id != alarm.id)
    )
    ended = alarm.closed_at if alarm.closed_at is not None else now
    return {
        **alarm_page(db, alarm),
        "wearer": alarm.wearer,
        "badge": badge,
        "visit": visit,
        "others": [{"id": a.id, "kind": a.kind} for a in others],
        "hub_names": {hub.id: hub.name or hub.id[:6] for hub in db.scalars(select(Hub))},
        "waits": {
            "receive": max(alarm.received_at - alarm.raised_at, 0.0),
            "claim": (alarm.claimed_at or ended) - alarm.received_at,
            "listen": None if alarm.listening_at is None else alarm.listening_at - alarm.received_at,
        },
        "error": None,
        "error_owner": None,
    }


async def alarm(request: Request) -> Response:
    """GET /alarms/{id}; as JSON for those who ask for it."""
    return await _alarm(request, request.path_params["id"], 200, {})


async def alarm_with_error(request: Request, alarm_id: int, status: int, body: Json) -> Response:
    """The page again, with what was refused at its top."""
    return await _alarm(request, alarm_id, status, {"error": body["error"], "error_owner": body.get("owner")})


async def _alarm(request: Request, alarm_id: int, status: int, more: Json) -> Response:
    def look() -> Json | None:
        with core_of(request).read() as db:
            row = db.get(Alarm, alarm_id)
            return None if row is None else alarm_page(db, row)

    found = await run_in_threadpool(look)
    if wants_json(request):
        return missing("alarm") if found is None else JSONResponse(found)
    if found is None:
        return await _page(request, "missing.html", lambda db, now: {"what": "alarm"}, 404)
    return await _page(
        request,
        "alarm.html",
        lambda db, now: {**_alarm_data(db, db.get_one(Alarm, alarm_id), now), **more},
        status,
    )


async def visits(request: Request) -> Response:
    """GET /visits."""
    return await _visits(request, 200, None, {})


async def _visits(request: Request, status: int, error: str | None, given: Json) -> Response:
    def build(db: Session, now: float) -> Json:
        found = all_visits(db, "all")
        return {
            "visits": [v for v in found if v["ended_at"] is None],
            "ended": [v for v in found if v["ended_at"] is not None][:30],
            "badges": [b for b in all_badges(db, now) if b["revoked_at"] is None],
            "defaults": core_of(request).config.visits,
            "error": error,
            "given": given,
        }

    return await _page(request, "visits.html", build, status)


async def post_visit(request: Request) -> Response:
    """POST /visits."""
    given = await body_of(request)
    try:
        answer = await plan_visit(request, given)
    except (alarms.Refused, alarms.Invalid) as error:
        status, body = refusal(error)
        if wants_json(request) or not principal_of(request).person:
            return JSONResponse(body, status)
        return await _visits(request, status, body["error"], given)
    plain = wants_json(request) or not principal_of(request).person
    return JSONResponse(answer) if plain else RedirectResponse("/visits", 303)


async def post_visit_act(request: Request) -> Response:
    """POST /visits/{id}/end, /extend and /check-in."""
    if request.path_params["act"] not in ("end", "extend", "check-in"):
        return missing("act")
    plain = wants_json(request) or not principal_of(request).person
    try:
        answer = await act_on_visit(request)
    except (alarms.Refused, alarms.Invalid) as error:
        status, body = refusal(error)
        return JSONResponse(body, status) if plain else await _visits(request, status, body["error"], {})
    if not answer:
        return missing("visit")
    return JSONResponse(answer) if plain else RedirectResponse("/visits", 303)


async def devices(request: Request) -> Response:
    """GET /devices."""

    def build(db: Session, now: float) -> Json:
        return {
            "badges": all_badges(db, now),
            "hubs": all_hubs(db),
            "tests": all_tests(db)[:20],
            "supervision": all_supervision(db, own=core_of(request).intake.entry),
        }

    return await _page(request, "devices.html", build)


# --- signing in -------------------------------------------------------------------------------------------------


def _local(path: str) -> str:
    """A path of our own to go on to, never another site."""
    parts = urlsplit(path)
    good = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.netloc
    return path if good else "/"


async def login_page(request: Request) -> Response:
    """GET /login."""
    if principal_of(request) is not None:
        return RedirectResponse("/", 303)
    return _login(request, 200, None, _local(request.query_params.get("next", "/")))


def _login(request: Request, status: int, error: str | None, onward: str) -> HTMLResponse:
    text = request.app.state.templates.get_template("login.html").render(
        station=core_of(request).config.station.name, error=error, onward=onward
    )
    return HTMLResponse(text, status)


async def login(request: Request) -> Response:
    """POST /login."""
    given = await body_of(request)
    name, password = str(given.get("username", "")), str(given.get("password", ""))
    onward = _local(str(given.get("next") or "/"))
    # one at a time: each check takes 64 MiB and 0.1 s, which must not become a way to stop the station
    async with request.app.state.signing_in:
        token = await run_in_threadpool(accounts.sign_in, core_of(request), name, password)
    if token is None:
        text = "Name or password is wrong"
        return JSONResponse({"error": text}, 401) if wants_json(request) else _login(request, 401, text, onward)
    response: Response = JSONResponse({"operator": name}) if wants_json(request) else RedirectResponse(onward, 303)
    url = core_of(request).config.station.url or ""
    secure = url.startswith("https://") or request.url.scheme == "https"
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")
    return response


async def logout(request: Request) -> Response:
    """POST /logout."""
    token, core = session_token(request.headers), core_of(request)

    def work() -> None:
        with core.work() as unit:
            if token is not None:
                accounts.sign_out(unit, token)

    await run_in_threadpool(work)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/")
    return response
