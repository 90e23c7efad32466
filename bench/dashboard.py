"""What the dashboard costs: the processor time and the bytes of its refreshes, and its memory over time.

A real ``streamlit run``, watched by real pages in headless Chromium. The run that they watch is live (this process
holds its lock and writes its events), or for the last question really trains.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.report import ROOT, Row
from gptlab import launcher
from gptlab.config import PRESETS, RunConfig
from gptlab.events import Evaluated, Event, Phase, Sampled, Started, Stepped, encode
from gptlab.preflight import prepare
from gptlab.runs import Run, RunStore

FLAGS: tuple[str, ...] = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
)
FLAGS += ("--disable-sync", "--no-first-run")
STEPS_A_SECOND = 10


def endless(num_epochs: int = 1_000_000) -> RunConfig:
    """A small model that trains until it is stopped."""
    model = {"context_length": 32, "emb_dim": 32, "n_heads": 2, "n_layers": 2}
    train = {"num_epochs": num_epochs, "keep_checkpoints": 1, "sample_tokens": 8}
    return PRESETS["tiny"].with_fields(model=model, train=train)


def facts(first: int, until: int, steps_per_epoch: int = 500) -> Iterator[Event]:
    """Believable events of the steps from ``first`` on; an evaluation every 20 steps, a sample an epoch."""
    for step in range(first, until):
        epoch, loss = step // steps_per_epoch + 1, 2 + 8 * math.exp(-step / 5000) + 0.3 * math.sin(step)
        seen = (step + 1) * 128
        yield Stepped(
            step=step,
            epoch=epoch,
            tokens_seen=seen,
            loss=loss,
            learning_rate=4e-3,
            grad_norm=1.5,
            tokens_per_second=9e3,
        )
        if step % 20 == 0:
            yield Evaluated(step=step, epoch=epoch, tokens_seen=seen, train_loss=loss, val_loss=loss + 0.4)
        if step % steps_per_epoch == steps_per_epoch - 1:
            ids = tuple(range(1000, 1050))
            yield Sampled(step=step, epoch=epoch, prompt="a", token_ids=ids, text="a b c", probabilities=(0.5,) * 50)


@contextmanager
def live_run(store: RunStore, n_before: int) -> Iterator[Run]:
    """A run with that many steps behind it, which goes on at ten steps a second while the block lasts."""
    run = prepare(store, endless())
    lock = launcher.take_lock(run)
    start = Started(run=run.id, device="cpu", n_parameters=3_242_752, total_steps=10**7, threads=2, steps_per_epoch=500)
    with open(run.events_path, "w", encoding="utf-8") as file:
        file.writelines(encode(event) + "\n" for event in (start, Phase(phase="training"), *facts(0, n_before)))
    over = threading.Event()

    def go_on() -> None:
        step = n_before
        while not over.wait(1 / STEPS_A_SECOND):
            for event in facts(step, step + 1):
                run.append(event)
            step += 1

    writer = threading.Thread(target=go_on, daemon=True)
    writer.start()
    try:
        yield run
    finally:
        over.set()
        writer.join()
        os.close(lock)


@dataclass
class Watched:
    """A dashboard, the browser that looks at it, and the bytes that went from one to the other."""

    url: str
    process: psutil.Process
    browser: Any
    received: list[int] = field(default_factory=list)

    def open(self, run: Run) -> None:
        page = self.browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.on("websocket", lambda socket: socket.on("framereceived", lambda data: self.received.append(len(data))))
        page.on("response", self._fetched)
        page.goto(f"{self.url}/training?run={run.id}")
        page.wait_for_function("Number(document.querySelector('.lc-plot')?.dataset.points || 0) > 0", timeout=120_000)
        page.wait_for_timeout(5000)
        self.page = page

    def _fetched(self, response: Any) -> None:
        if "/gptlab/runs/" in response.url:
            self.received.append(int(response.headers.get("content-length", 0)))

    def second(self, seconds: float) -> tuple[float, float]:
        """Processor seconds of the server and bytes that pages received, in a second of watching."""
        used, bytes_before, began = self._used(), sum(self.received), time.perf_counter()
        self.page.wait_for_timeout(seconds * 1000)  # frames are counted only while the page is being driven
        lasted = time.perf_counter() - began
        return (self._used() - used) / lasted, (sum(self.received) - bytes_before) / lasted

    def _used(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    @property
    def resident(self) -> float:
        """Bytes."""
        return float(self.process.memory_info().rss)


@contextmanager
def watched() -> Iterator[tuple[Watched, RunStore]]:
    """A dashboard of its own on a data folder of its own, and a browser."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, socket.socket() as probe, sync_playwright() as playwright:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
        probe.close()
        os.environ["GPTLAB_HOME"] = home
        command = [sys.executable, "-m", "streamlit", "run", "dashboard.py"]
        process = subprocess.Popen(
            [*command, f"--server.port={port}", "--server.headless=true"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        url = f"http://localhost:{port}"
        _wait_for(f"{url}/_stcore/health")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        try:
            yield Watched(url, psutil.Process(process.pid), browser), RunStore(Path(home) / "runs")
        finally:
            browser.close()
            process.terminate()
            process.wait(20)


def _wait_for(url: str, seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)


def refreshes(short: bool) -> list[Row]:
    """One page at one refresh a second, on a young run and on one of 100,000 steps.

    The young run has an epoch behind it: reading the vocabulary and indexing the text, once for its first sample, takes
    about a second and is no part of a refresh.
    """
    seconds = 10 if short else 60
    with watched() as (dashboard, store):
        with live_run(store, 600) as run:
            dashboard.open(run)
            share, _ = dashboard.second(seconds)
            dashboard.page.close()
        with live_run(store, 100_000) as run:
            dashboard.open(run)
            busy, sent = dashboard.second(seconds)
    how = f"one page open for {seconds} s, {STEPS_A_SECOND} steps and one refresh a second"
    long = f"{how}, 100,000 steps"
    return [
        Row("dashboard: server, of a core", 100 * share, 5, how, "", at_most=True, unit="%"),
        Row("dashboard: server time a refresh", 1000 * busy, 150, long, "", at_most=True, unit="ms"),
        Row("dashboard: sent a refresh", sent / 1000, 200, long, "", at_most=True, unit="KB"),
    ]


def ten_pages(short: bool) -> list[Row]:
    """The server's processor time with ten pages open on a run that trains, in a browser that draws beside it."""
    if short:  # ten pages take a slow browser minutes to open
        return []
    seconds = 40
    with watched() as (dashboard, store):
        run = prepare(store, endless())
        launcher.start(run)
        while run.log().steps_completed < 20:
            time.sleep(0.2)
        for _ in range(10):
            dashboard.open(run)
        share, _ = dashboard.second(seconds)
        launcher.force_stop(run)
    told = "share of a core that the server takes; pages in a browser on the same machine draw beside it"
    return [Row("dashboard: ten pages on a run that trains", 100 * share, 50, told, "", at_most=True, unit="%")]


def soak(short: bool, minutes: float = 60) -> list[Row]:
    """The server's memory while two pages watch a live run: its growth after the first tenth of the time."""
    minutes = 2 if short else minutes
    with watched() as (dashboard, store), live_run(store, 1000) as run:
        dashboard.open(run)
        dashboard.open(run)
        taken = []
        for _ in range(20):
            dashboard.second(minutes * 60 / 20)
            taken.append(dashboard.resident / 1e6)
    growth = taken[-1] - taken[1]
    told = ", ".join(f"{size:.0f}" for size in taken)
    return [
        Row(
            f"dashboard: memory over {minutes:g} minutes",
            growth,
            20,
            f"MB resident: {told}",
            "",
            at_most=True,
            unit="MB",
        )
    ]
