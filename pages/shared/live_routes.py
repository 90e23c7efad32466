"""Where the page of a run that trains fetches what is new, once a second: see ``live_view``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gptlab.runs import Run
from pages.shared.live_view import losses_text, now_text
from pages.shared.loss_chart import View
from pages.shared.store import kept, listed, store

_asked_for: dict[str, Run] = {}  # by id, listed once


def live_routes() -> list[Route]:
    return [Route("/gptlab/runs/{run}/now.json", _now), Route("/gptlab/runs/{run}/losses.json", _losses)]


def _now(request: Request) -> Response:
    run = _followed(request.path_params["run"])
    return Response(status_code=404) if run is None else _news(now_text(run.id, run))


def _losses(request: Request) -> Response:
    """The chart; 204 where nothing was written since the version that the page has."""
    run, asked = _followed(request.path_params["run"]), request.query_params
    if run is None:
        return Response(status_code=404)
    try:
        view = View.read(*(asked.get(name, "") for name in ("axis", "x", "y", "smoothing")))
        since = int(asked.get("since", "-1"))
    except ValueError as error:
        return PlainTextResponse(f"{error}\n", 400)
    if run.log().offset == since:
        return Response(status_code=204)
    return _news(losses_text(run.id, run, view.query(), view))


def _news(text: str) -> Response:
    """Not compressed, as little as what Streamlit sends: every second, for a browser that is near."""
    headers = {"Cache-Control": "no-store", "Content-Encoding": "identity"}
    return Response(text, media_type="application/json", headers=headers)


def _followed(run_id: str) -> Run | None:
    """The run, if the store lists it; the store is gone through only for one that nobody has asked for yet."""
    known = _asked_for.get(run_id)
    if known is None or known.path.parent != store().root or not known.path.is_dir():
        _asked_for.pop(run_id, None)
        known = listed(run_id)
        if known is not None:
            _asked_for[run_id] = known
    return known and kept(known)
