"""A page on a run that trains follows it without the server drawing it again for each second."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from playwright.sync_api import Page, WebSocket, expect
from streamlit.proto.BackMsg_pb2 import BackMsg

from gptlab.events import Stepped, Warned
from gptlab.runs import Run
from tests.browser.conftest import PATIENCE, Dashboard
from tests.browser.test_click_through import points, wait_until
from tests.fake_run import hold, make_run


class Traffic:
    """What goes over the page's connection: drawings of the live part that came, and wishes for one that were sent."""

    def __init__(self, page: Page) -> None:
        self.drawings, self.wishes = 0, 0
        self.asked: list[str] = []  # addresses of news
        page.on("websocket", self._connected)
        page.on("request", lambda request: self.asked.append(request.url) if request.resource_type == "fetch" else None)

    def _connected(self, socket: WebSocket) -> None:
        socket.on("framereceived", self._received)
        socket.on("framesent", self._sent)

    def _received(self, frame: str | bytes) -> None:
        self.drawings += isinstance(frame, bytes) and b"gptlab_status_card" in frame

    def _sent(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            asked = BackMsg.FromString(frame)
            if asked.WhichOneof("type") == "rerun_script":
                self.wishes += bool(asked.rerun_script.fragment_id) and not asked.rerun_script.is_auto_rerun


def step(run: Run, number: int) -> None:
    seen = 512 * (number + 1)
    run.append(
        Stepped(
            step=number, epoch=number // 9 + 1, tokens_seen=seen, loss=1.25, learning_rate=4e-4, grad_norm=1.0,
            tokens_per_second=900.0, time=time.time(),
        )
    )  # fmt: skip


def watch_until(page: Page, condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    """As ``wait_until``, with the browser's messages coming in."""
    give_up = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < give_up, "it did not come about"
        meanwhile()
        page.wait_for_timeout(100)


def test_steps_are_fetched_and_the_page_is_drawn_for_what_else_is_new(dashboard: Dashboard, page: Page) -> None:
    run = make_run(dashboard.store, 10_000, status="running", until=45)
    with hold(run):
        traffic = Traffic(page)
        page.goto(f"{dashboard.url}/training?run={run.id}")
        wait_until(lambda: points(page) > 45)
        line = page.locator(".sc-line")
        expect(line).to_contain_text("step 45 of", timeout=PATIENCE)
        page.wait_for_timeout(1500)
        drawings, before = traffic.drawings, points(page)
        numbers = count(45)
        watch_until(page, lambda: points(page) > before + 25, lambda: step(run, next(numbers)))
        following = next(numbers)
        expect(line).to_contain_text(f"step {following:,} of", timeout=PATIENCE)
        assert traffic.wishes == 0
        assert traffic.drawings - drawings <= 1  # that of every ten seconds

        for number in count(1):  # one of them may be shown by the drawing of every ten seconds
            run.append(Warned(step=following, message=f"The disk is nearly full ({number}).", time=time.time()))
            expect(page.get_by_text(f"The disk is nearly full ({number}).")).to_be_visible(timeout=PATIENCE)
            if traffic.wishes:
                break
            assert number < 5
        assert traffic.wishes == 1
    expect(page.locator(".sc-chip")).to_have_text("Interrupted", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=PATIENCE)
    page.wait_for_timeout(1500)
    traffic.asked.clear()
    page.wait_for_timeout(2500)
    assert traffic.asked == []  # an ended run is not followed


LEAST_SHOWN = """(chip) => {
    const plot = document.querySelector(".lc-plot");
    window.least = Infinity;
    window.chips = new Set();
    window.lines = new Set();
    window.watch = setInterval(() => {
        window.least = Math.min(window.least, Number(plot.dataset.points));
        window.chips.add(chip.textContent);
        window.lines.add(chip.nextSibling.textContent);
    }, 5);
}"""


def test_nothing_older_than_what_is_shown_is_drawn(dashboard: Dashboard, page: Page) -> None:
    run = make_run(dashboard.store, 10_000, status="running", until=45)
    with hold(run):
        page.goto(f"{dashboard.url}/training?run={run.id}")
        numbers = count(45)
        watch_until(page, lambda: points(page) > 45 + 60, lambda: step(run, next(numbers)))
        line, newest = page.locator(".sc-line"), f"step {next(numbers):,} of"
        expect(line).to_contain_text(newest, timeout=PATIENCE)
        page.wait_for_timeout(1500)
        page.locator(".sc-chip").evaluate(LEAST_SHOWN)
        shown = points(page)
        page.emulate_media(color_scheme="dark")  # components are given once more what the page was drawn with
        page.route(
            "**/now.json", lambda route: route.fulfill(json={**route.fetch().json(), "chip": "Stale", "at": 1.0})
        )
        page.wait_for_timeout(3000)
        assert page.evaluate("window.least") == shown
        assert page.evaluate("[...window.chips]") == ["Training"]
        (told,) = page.evaluate("[...window.lines]")
        assert newest in told


def test_another_axis_is_followed_instead_of_the_first(dashboard: Dashboard, page: Page) -> None:
    run = make_run(dashboard.store, status="running")
    with hold(run):
        traffic = Traffic(page)
        page.goto(f"{dashboard.url}/training?run={run.id}")
        watch_until(page, lambda: any("axis=epoch" in url for url in traffic.asked))
        page.get_by_text("Steps", exact=True).click()
        watch_until(page, lambda: any("axis=step" in url for url in traffic.asked))
        page.wait_for_timeout(1500)
        traffic.asked.clear()
        page.wait_for_timeout(3000)
        charts = [url for url in traffic.asked if "losses.json" in url]
        assert charts
        assert all("axis=step" in url for url in charts)
        assert len(charts) <= 4  # one a second: nobody asks twice


def test_a_page_goes_on_after_news_that_cannot_be_used_or_that_do_not_come(dashboard: Dashboard, page: Page) -> None:
    run = make_run(dashboard.store, 10_000, status="running", until=45)
    with hold(run):
        traffic, errors = Traffic(page), list[str]()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{dashboard.url}/training?run={run.id}")
        expect(page.locator(".sc-line")).to_contain_text("step 45 of", timeout=PATIENCE)
        page.route("**/now.json", lambda route: route.fulfill(body="{"))
        watch_until(page, lambda: any("JSON" in error for error in errors))
        page.unroute("**/now.json")
        page.route("**/now.json", lambda route: route.abort())
        watch_until(page, lambda: any("ERR_FAILED" in error for error in errors))
        page.unroute("**/now.json")
        traffic.asked.clear()
        watch_until(page, lambda: sum("now.json" in url for url in traffic.asked) > 1)


def test_a_page_that_nobody_looks_at_asks_for_nothing(dashboard: Dashboard, page: Page) -> None:
    run = make_run(dashboard.store, status="running")
    with hold(run):
        traffic = Traffic(page)
        page.goto(f"{dashboard.url}/training?run={run.id}")
        wait_until(lambda: points(page) > 45)
        for name in ("now.json", "losses.json"):
            watch_until(page, lambda name=name: any(name in url for url in traffic.asked))  # type: ignore[misc]
        page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true })")
        page.evaluate("() => { window.away = true; }")
        page.wait_for_timeout(1500)
        traffic.asked.clear()
        page.wait_for_timeout(2500)
        assert traffic.asked == []
        page.evaluate("() => { window.away = false; document.dispatchEvent(new Event('visibilitychange')); }")
        watch_until(page, lambda: len(traffic.asked) >= 4)
