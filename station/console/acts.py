"""What an operator does with an alarm, as form posts or from scripts; and the consoles' ticks."""

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from station import alarms, views
from station.console import pages
from station.console.answers import JSONResponse
from station.console.api import Json, body_of, core_of, missing, principal_of, refusal, wants_json, working
from station.model import Alarm
from station.work import Work

SEEN_MAX = 200  # alarms that one tick may name
VERSION_DIGITS = 15


def _shown(given: Json) -> int | None:
    """The version of the alarm that was on the screen, where that is said. Raises alarms.Invalid."""
    version = given.get("version")
    if isinstance(version, str) and version.isdecimal() and len(version) <= VERSION_DIGITS:
        version = int(version)
    if version is None or (type(version) is int and 0 <= version < 10**VERSION_DIGITS):
        return version
    raise alarms.Invalid("version must be that of the ALARM which was shown, a whole number")


def _claim(work: Work, alarm: Alarm, who: str, given: Json) -> None:
    alarms.claim(work, alarm, who, _shown(given))


def _take_over(work: Work, alarm: Alarm, who: str, given: Json) -> None:
    alarms.take_over(work, alarm, who, str(given.get("reason", ""))[:200], _shown(given))


def _listen(work: Work, alarm: Alarm, who: str, given: Json) -> None:
    if alarm.closed_at is not None:
        raise alarms.Refused("this alarm is closed: its sound is in the archive")
    work.audit(who, "asks to listen", f"alarm:{alarm.id}", reason=str(given.get("reason", ""))[:200])


def _step(work: Work, alarm: Alarm, who: str, _: Json) -> None:
    alarms.next_step(work, alarm, who)


def _note(work: Work, alarm: Alarm, who: str, given: Json) -> None:
    alarms.note(work, alarm, who, str(given.get("text", "")))


def _close(work: Work, alarm: Alarm, who: str, given: Json) -> None:
    welfare = given.get("welfare", "")
    text = str(given.get("text", ""))[: alarms.NOTE_MAX]
    alarms.close(work, alarm, who, str(given.get("outcome", "")), str(welfare), text)


ACTS: dict[str, Callable[[Work, Alarm, str, Json], None]] = {
    "claim": _claim,
    "takeover": _take_over,
    "listen": _listen,
    "next-step": _step,
    "note": _note,
    "close": _close,
}


# Where the keyboard goes on after an act that was sent as a plain form, before the script was there: an element's id.
GOES_ON = {"next-step": "next-step", "note": "note"}


async def act(request: Request) -> Response:
    """POST /alarms/{id}/{act}."""
    principal = principal_of(request)
    if not principal.person:
        return JSONResponse({"error": "only a signed-in operator may do this"}, 403)
    alarm_id, name = request.path_params["id"], request.path_params["act"]
    if name not in ACTS:
        return missing("act")

    def change(work: Work) -> Json:
        alarm = work.alarm(alarm_id)
        if alarm is None:
            return {}
        ACTS[name](work, alarm, principal.name, given)
        alarms.tick(work, principal.name)
        work.db.flush()
        answer: Json = {"alarm": views.alarm(work.db, alarm)}
        if name == "listen":
            answer["websocket"] = f"/alarms/{alarm_id}/audio"
        return answer

    try:
        given = await body_of(request)
        answer = await working(request, change)
    except (alarms.Refused, alarms.Invalid) as error:
        status, body = refusal(error)
        if wants_json(request):
            return JSONResponse(body, status)
        return await pages.alarm_with_error(request, alarm_id, status, body)
    if not answer:
        return missing("alarm")
    if wants_json(request):
        return JSONResponse(answer)
    at = f"#{GOES_ON[name]}" if name in GOES_ON else ""
    return RedirectResponse(f"/alarms/{alarm_id}{at}", 303)


async def tick(request: Request) -> Response:
    """POST /tick: a console is alive, and shows these alarms."""
    principal, core = principal_of(request), core_of(request)
    given = await body_of(request)
    seen = given.get("seen", [])
    if not isinstance(seen, list) or len(seen) > SEEN_MAX or not all(type(n) is int for n in seen):
        raise alarms.Invalid("seen must be a list of alarm numbers")
    if principal.person:

        def work() -> None:
            with core.work() as unit:
                alarms.tick(unit, principal.name)
                alarms.seen(unit, [n for n in seen if 0 < n < 1 << 62], principal.name)

        await run_in_threadpool(work)
    return JSONResponse({"at": core.clock.now()})
