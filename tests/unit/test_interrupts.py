"""An interrupt from a signal's handler ends an event loop, whatever the loop does just then."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_flux.execution.interrupts import run_interruptible


async def _wait(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3)
        ended.append("waited to the end")
    except asyncio.CancelledError:
        ended.append("cancelled")
        await asyncio.sleep(0.01)
        ended.append("cleaned up")
        raise


def _keep_busy(until: float) -> None:
    """Fill the loop with callbacks, so that a signal finds it in one of them."""
    time.sleep(0.05)
    if time.monotonic() < until:
        asyncio.get_running_loop().call_soon(_keep_busy, until)


@pytest.mark.parametrize("busy", [0.0, 3.0])
def test_timeout_waits_for_the_cleanup(busy: float) -> None:
    ended: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(_keep_busy, time.monotonic() + busy)
        await _wait(ended)

    with pytest.raises(AirflowTaskTimeout), timeout(0.5):
        run_interruptible(work())
    assert ended == ["cancelled", "cleaned up"]


def test_result_and_error_are_passed_through() -> None:
    async def work(fails: bool) -> str:
        if fails:
            raise LookupError("no pear")
        return "a pear"

    assert run_interruptible(work(False)) == "a pear"
    with pytest.raises(LookupError, match="no pear"):
        run_interruptible(work(True))
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert loop.run_until_complete(work(False)) == "a pear", "it leaves no loop behind in this thread"
