"""What the dashboard serves besides its pages: plotly's script, and a run's files as downloads that are streamed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gptlab.export import metrics_csv
from gptlab.report import report
from gptlab.runs import Run
from gptlab.script import script_of_run
from pages.shared.live_routes import live_routes
from pages.shared.store import listed

A_YEAR = {"Cache-Control": "public, max-age=31536000, immutable"}


def routes() -> list[Route]:
    """All routes, below /gptlab/ so that they meet neither a page nor one of Streamlit's own."""
    return [
        Route("/gptlab/plotly.min.js", _plotly),
        Route("/gptlab/runs/{run}/config.json", _config),
        Route("/gptlab/runs/{run}/metrics.csv", _metrics),
        Route("/gptlab/runs/{run}/report.html", _report),
        *live_routes(),
        Route("/gptlab/runs/{run}/script.py", _script),
        Route("/gptlab/runs/{run}/{checkpoint}/weights.safetensors", _weights),
    ]


def _plotly(request: Request) -> Response:
    spec = importlib.util.find_spec("plotly")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    return FileResponse(folder / "package_data" / "plotly.min.js", media_type="text/javascript", headers=A_YEAR)


def _run(request: Request) -> Run | None:
    return listed(request.path_params["run"])


def _config(request: Request) -> Response:
    run = _run(request)
    if run is None or not (run.path / "config.json").is_file():
        return _missing()
    return FileResponse(run.path / "config.json", media_type="application/json", filename=f"{_stem(run)}-config.json")


def _metrics(request: Request) -> Response:
    run = _run(request)
    if run is None or not run.events_path.is_file():
        return _missing()
    headers = {"Content-Disposition": f'attachment; filename="{_stem(run)}-metrics.csv"'}
    return StreamingResponse(metrics_csv(run.events()), media_type="text/csv", headers=headers)


def _report(request: Request) -> Response:
    run = _run(request)
    if run is None:
        return _missing()
    headers = {"Content-Disposition": f'attachment; filename="{_stem(run)}.html"'}
    return StreamingResponse(report(run), media_type="text/html", headers=headers)


def _script(request: Request) -> Response:
    run = _run(request)
    if run is None or run.config_error:
        return _missing()
    headers = {"Content-Disposition": f'attachment; filename="{_stem(run)}.py"'}
    return PlainTextResponse(script_of_run(run), media_type="text/x-python", headers=headers)


def _weights(request: Request) -> Response:
    run, wanted = _run(request), request.path_params["checkpoint"]
    kept = [item for item in run.checkpoints() if item.name == wanted] if run else []
    if run is None or not kept:
        return _missing()
    name = f"{_stem(run)}-{kept[0].name}.safetensors"
    return FileResponse(kept[0].weights, media_type="application/octet-stream", filename=name)


def _stem(run: Run) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", run.id).strip("-") or "run"


def _missing() -> Response:
    return PlainTextResponse("No such file: the run or the checkpoint was deleted, or the link is wrong.\n", 404)
