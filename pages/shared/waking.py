"""What begins with the dashboard: the queue's runners, where runs wait and no runner is there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gptlab.queue import Queue


@asynccontextmanager
async def with_the_queue(_app: Any) -> AsyncIterator[None]:
    """The dashboard's lifespan. A queue that cannot be started never keeps the dashboard from starting."""
    wake_queue()
    yield


def wake_queue() -> str:
    """Start the runners that are missing; why that was not possible, or nothing."""
    try:
        Queue().start_runners()
    except (OSError, ValueError) as error:
        logging.getLogger(__name__).warning("%s", error)
        return str(error)
    return ""
