"""The budget of a batch: what is set aside, given back, and refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.batch.budget import Budget, Kind, NotSubmittedError, price_key

DEV, PRO = price_key("dev", {}), price_key("pro", {})


def spend(most: float | None, script: Callable[[Budget], Awaitable[None]]) -> Budget:
    async def run() -> Budget:
        budget = Budget(most)
        await script(budget)
        return budget

    return asyncio.run(run())


async def buy(
    budget: Budget, cost: float | None, error: errors.FluxError | None = None, kind: Kind = DEV, accepted: bool = True
) -> None:
    try:
        with await budget.set_aside(kind) as charge:
            if accepted:
                charge.tell(cost)
            if error is not None:
                raise error
            charge.finish(cost)
    except errors.FluxError:
        pass


@pytest.mark.parametrize(
    ("error", "accepted", "is_paid"),
    [
        (errors.FluxModeratedError("no", job_id="a"), True, False),
        (errors.FluxJobFailedError("no", job_id="a"), True, False),
        (errors.FluxBadRequestError("no"), False, False),
        (errors.FluxTimeoutError("late", job_id="a"), True, True),
        (errors.FluxUncertainSubmitError("lost"), False, True),
    ],
)
@pytest.mark.parametrize("cost", [2.5, None])
def test_only_what_costs_nothing_is_given_back(
    cost: float | None, error: errors.FluxError, accepted: bool, is_paid: bool
) -> None:
    async def script(budget: Budget) -> None:
        await buy(budget, 2.5)
        await buy(budget, cost, error, accepted=accepted)
        if is_paid:
            with pytest.raises(NotSubmittedError, match="max_cost is reached"):
                await buy(budget, 2.5)
        else:
            await buy(budget, 2.5)

    assert spend(5, script).paid == (5.0 if not is_paid or (accepted and cost) else 2.5)


def test_without_told_costs_there_is_one_image() -> None:
    async def script(budget: Budget) -> None:
        await buy(budget, None)
        for kind in (DEV, PRO):
            with pytest.raises(NotSubmittedError, match="the API does not report the cost of dev"):
                await buy(budget, None, kind=kind)

    spend(100, script)


@pytest.mark.parametrize("kinds", [[DEV] * 4, [DEV, PRO, DEV, PRO]])
def test_while_a_price_is_unknown_one_goes_alone(kinds: list[Kind]) -> None:
    untold = most = 0

    async def one(budget: Budget, kind: Kind) -> None:
        nonlocal untold, most
        with await budget.set_aside(kind) as charge:
            untold += 1
            most = max(most, untold)
            seen.add(kind)
            assert untold == 1 or seen == told
            await asyncio.sleep(0)
            charge.tell(2.5)
            told.add(kind)
            untold -= 1

    async def script(budget: Budget) -> None:
        await asyncio.gather(*(one(budget, kind) for kind in kinds))

    seen: set[Kind] = set()
    told: set[Kind] = set()
    assert spend(10, script).paid == 10
    assert most > 1


def test_what_passes_the_limit_is_left_out_and_what_does_not_goes_on() -> None:
    async def script(budget: Budget) -> None:
        await buy(budget, 1)
        await buy(budget, 5, kind=PRO)
        with pytest.raises(NotSubmittedError):
            await buy(budget, 5, kind=PRO)
        await buy(budget, 1)

    assert spend(8, script).paid == 7


def test_a_job_of_an_earlier_try_is_waited_for_and_counted() -> None:
    async def script(budget: Budget) -> None:
        earlier = budget.count(DEV)
        earlier.tell(None)
        another = asyncio.create_task(buy(budget, 4, kind=PRO))
        await asyncio.sleep(0)
        with earlier:
            earlier.finish(6)
        with pytest.raises(NotSubmittedError):
            await buy(budget, 6)
        await another

    assert spend(10, script).paid == 10


@pytest.mark.parametrize(
    "request_",
    [{"width": 2048}, {"resolution": "4k"}, {"input_image": "sha256:a"}, {"images": ["sha256:a", "sha256:b"]}],
)
def test_what_makes_a_price(request_: dict[str, Any]) -> None:
    assert price_key("pro", request_) != price_key("pro", {"prompt": "a pear", "seed": 7}) == PRO


def test_without_a_limit_nothing_is_refused() -> None:
    async def script(budget: Budget) -> None:
        await asyncio.gather(*(buy(budget, cost) for cost in (None, 1.0, None, 4.0)))

    assert spend(None, script).paid == 5
