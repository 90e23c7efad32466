"""A timed fragment's message that arrives after its page was left: held back here on the wire, then let through."""

from __future__ import annotations

from playwright.sync_api import Page, WebSocketRoute, expect
from streamlit.proto.BackMsg_pb2 import BackMsg

from tests.browser.conftest import PATIENCE, Dashboard
from tests.browser.test_click_through import slow_draft, start, wait_until


class Wire:
    """The page's connection to the server. While ``hold``, messages of timers are kept in ``held``."""

    def __init__(self, page: Page) -> None:
        self.hold = False
        self.held: list[bytes] = []
        page.route_web_socket("**/_stcore/stream*", self._connect)

    def _connect(self, browser: WebSocketRoute) -> None:
        self.server = browser.connect_to_server()
        browser.on_message(self._from_browser)

    def _from_browser(self, message: str | bytes) -> None:
        if isinstance(message, bytes) and self.hold:
            asked = BackMsg.FromString(message)
            if asked.WhichOneof("type") == "rerun_script" and asked.rerun_script.is_auto_rerun:
                self.held.append(message)
                return
        self.server.send(message)

    def release(self) -> None:
        self.hold = False
        for message in self.held:
            self.server.send(message)


def test_a_timer_of_the_page_that_was_left_does_not_empty_the_new_one(dashboard: Dashboard, page: Page) -> None:
    slow_draft()
    run = start(page, dashboard)
    wait_until(lambda: run.log().steps_completed > 5)
    wire = Wire(page)
    page.goto(f"{dashboard.url}/hyperparameters")
    expect(page.get_by_role("button", name="Go to training")).to_be_visible(timeout=PATIENCE)
    wire.hold = True
    while not wire.held:
        page.wait_for_timeout(100)
    page.get_by_role("button", name="Go to training").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible(timeout=PATIENCE)
    wire.release()
    page.wait_for_timeout(2000)  # the answer to the late message has come
    assert page.get_by_role("heading", name="Training", exact=True).is_visible()
    assert page.get_by_role("button", name="Pause").is_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=PATIENCE)
    assert run.status() == "paused"
