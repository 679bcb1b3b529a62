"""The application of one run: routes below /api, the static page beside them, and one
line for every refusal.

    app = make_app(Place(url="redis://127.0.0.1:6379/0", run="cheetah"))

It holds nothing that a restart would lose: leases, answers and tokens are in Redis, and
several servers may serve one run at once. The interface describes itself at
/openapi.json.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from rlhp.labeling.page import admin, live, routes
from rlhp.labeling.page.desk import Desk, Place
from rlhp.labeling.page.guard import JSON, Guard, away, problem
from rlhp.labeling.page.messages import Problem
from rlhp.labeling.page.routes import cookie_name

STATIC = Path(__file__).parent / "static"
PAGES = {"/": "index.html", "/live": "live.html", "/admin": "admin.html"}
REFUSALS = {
    401: "no token, or one that is not known",
    408: "a body that takes longer than ten seconds",
    413: "a body of more than 16 KiB",
    422: "a request that is not what it should be",
    503: "Redis is away: try again after `Retry-After` seconds",
}


def make_app(place: Place) -> FastAPI:
    """The application; it connects to Redis with its first request."""
    desk = Desk(place)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="rlhp labeling server",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere, which the page's policy forbids
        redoc_url=None,
        default_response_class=JSON,
        responses={
            code: {"model": Problem, "description": words} for code, words in REFUSALS.items()
        },
    )
    app.state.desk = desk
    for room in (routes.router, admin.router, live.router):
        app.include_router(room)
    for path, name in PAGES.items():
        app.add_api_route(path, _page(name), include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))
    app.add_middleware(Guard, who=desk.who, cookie=cookie_name(place.run))
    app.add_middleware(
        ProxyHeadersMiddleware, trusted_hosts=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
    )
    _add_refusals(app)
    return app


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return problem(422, f"{where}: {first['msg'].lower()}")

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> Response:
        refusal = problem(error.status_code, str(error.detail))
        refusal.headers.update(error.headers or {})
        return refusal

    # QueueUnavailable is one, and a clip store that cannot be reached raises others
    @app.exception_handler(OSError)
    def unavailable(_: Request, error: OSError) -> Response:
        return away(error)


def _page(name: str):  # type: ignore[no-untyped-def]
    def page() -> Response:
        file = STATIC / name
        return (
            FileResponse(file)
            if file.is_file()
            else problem(404, f"{name} is not part of this installation")
        )

    return page


def _version() -> str:
    try:
        return version("rlhp")
    except PackageNotFoundError:
        return "0"
