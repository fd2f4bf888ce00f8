"""The web application: routes to their handlers, behind the gate."""

import asyncio
import logging

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from station import alarms
from station.console import acts, api, pages, sound, stream
from station.console.answers import JSONResponse
from station.console.gate import Gate, unavailable
from station.run import Station
from station.store import UNAVAILABLE

logger = logging.getLogger("station.console")


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    words = {404: "there is no such page", 405: "this method is not for this address"}
    return JSONResponse({"error": words.get(status, "this cannot be done")}, status)


async def _database(request: Request, error: Exception) -> Response:
    logger.error("the database refused a request: %s", getattr(error, "orig", error))
    return unavailable()


def build(station: Station) -> Starlette:
    """The application of a station; its broadcast hears of every commit from now on."""
    routes = [
        Route("/", pages.queue),
        Route("/login", pages.login_page),
        Route("/login", pages.login, methods=["POST"]),
        Route("/logout", pages.logout, methods=["POST"]),
        Route("/events", stream.events),
        Route("/tick", acts.tick, methods=["POST"]),
        Route("/alarms/{id:int}", pages.alarm),
        Route("/alarms/{id:int}/audio.wav", sound.wav_file),
        WebSocketRoute("/alarms/{id:int}/audio", sound.listen),
        Route("/alarms/{id:int}/{act}", acts.act, methods=["POST"]),
        Route("/visits", pages.visits),
        Route("/visits", pages.post_visit, methods=["POST"]),
        Route("/visits/{id:int}/{act}", pages.post_visit_act, methods=["POST"]),
        Route("/devices", pages.devices),
        Route("/api/alarms", api.get_alarms),
        Route("/api/alarms/{id:int}", api.get_alarm),
        Route("/api/visits", api.get_visits),
        Route("/api/badges", api.get_badges),
        Route("/api/badges", api.post_badge, methods=["POST"]),
        Route("/api/badges/{badge:int}/{act:str}", api.post_badge_act, methods=["POST"]),
        Route("/api/hubs", api.get_hubs),
        Route("/api/group-key", api.post_group_key, methods=["POST"]),
        Route("/api/hubs/{hub}/{act:str}", api.post_hub_act, methods=["POST"]),
        Route("/api/tests", api.get_tests),
        Route("/api/supervision", api.get_supervision),
        Route("/api/audit", api.get_audit),
        Route("/api/audit/verify", api.verify_audit),
        Route("/api/health", api.health),
        Mount("/static", StaticFiles(directory=pages.HERE / "static")),
    ]
    config = station.config.station
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Gate, core=station.core, token=config.api_token, url=config.url)],
        exception_handlers={
            alarms.Refused: api.on_refusal,
            alarms.Invalid: api.on_refusal,
            **dict.fromkeys(UNAVAILABLE, _database),
            404: _not_found,
            405: _not_found,
        },
    )
    app.state.station = station
    app.state.core = station.core
    app.state.live = station.live
    app.state.broadcast = stream.Broadcast()
    app.state.hearings = sound.Hearings(station.core)
    app.state.templates = pages.environment()
    app.state.signing_in = asyncio.Lock()
    station.core.on_commit(app.state.broadcast.committed)
    station.core.on_news(app.state.broadcast.committed)
    return app
