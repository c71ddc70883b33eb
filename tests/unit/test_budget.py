"""The budget of a batch: what is reserved, refunded, and refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.batch.budget import Budget, MaxCostError, NotSubmittedError, PriceKey, price_key

DEV, PRO = price_key("dev", {}), price_key("pro", {})
LISTED = price_key("flux-pro-1.1", {})
"""Of a published price, 4 credits."""


def spend(max_cost: float | None, script: Callable[[Budget], Awaitable[None]]) -> Budget:
    async def run() -> Budget:
        budget = Budget(max_cost)
        await script(budget)
        return budget

    return asyncio.run(run())


async def submit(
    budget: Budget,
    cost: float | None,
    error: errors.FluxError | None = None,
    key: PriceKey = DEV,
    accepted: bool = True,
) -> None:
    try:
        with await budget.reserve(key) as reservation:
            if accepted:
                reservation.record_cost(cost)
            if error is not None:
                raise error
            reservation.settle(cost)
    except errors.FluxError:
        pass


@pytest.mark.parametrize(
    ("error", "accepted", "is_billed"),
    [
        (errors.FluxModeratedError("no", job_id="a"), True, False),
        (errors.FluxContentModeratedError("no", job_id="a"), True, True),
        (errors.FluxJobFailedError("no", job_id="a"), True, False),
        (errors.FluxBadRequestError("no"), False, False),
        (errors.FluxTimeoutError("late", job_id="a"), True, True),
        (errors.FluxUncertainSubmitError("lost"), False, True),
    ],
)
@pytest.mark.parametrize("cost", [2.5, None])
def test_only_jobs_that_are_not_billed_are_refunded(
    cost: float | None, error: errors.FluxError, accepted: bool, is_billed: bool
) -> None:
    async def script(budget: Budget) -> None:
        await submit(budget, 2.5)
        await submit(budget, cost, error, accepted=accepted)
        if is_billed:
            with pytest.raises(MaxCostError, match="max_cost is reached"):
                await submit(budget, 2.5)
        else:
            await submit(budget, 2.5)

    assert spend(5, script).billed == (5.0 if not is_billed or (accepted and cost) else 2.5)


def test_without_reported_costs_only_one_job_is_submitted() -> None:
    async def script(budget: Budget) -> None:
        await submit(budget, None)
        for key in (DEV, PRO):
            with pytest.raises(NotSubmittedError, match="the API does not report the cost of dev"):
                await submit(budget, None, key=key)

    spend(100, script)


def test_jobs_of_published_price_do_not_wait_for_each_other() -> None:
    async def script(budget: Budget) -> None:
        held = [await budget.reserve(LISTED) for _ in range(2)]
        third = asyncio.create_task(submit(budget, 4, key=LISTED))
        await asyncio.sleep(0)
        assert not third.done(), "the two in flight may cost all that is left"
        held[0].record_cost(5)
        held[0].settle(5)
        for reservation in held[1:]:
            reservation.refund()
        for reservation in held:
            reservation.close()
        with pytest.raises(MaxCostError):
            await submit(budget, 4, key=LISTED)
        with pytest.raises(MaxCostError):
            await third

    assert spend(9.5, script).billed == 5


def test_jobs_whose_cost_is_not_reported_count_with_their_published_price() -> None:
    async def script(budget: Budget) -> None:
        await submit(budget, None, key=LISTED)
        await submit(budget, None, key=LISTED)
        with pytest.raises(MaxCostError):
            await submit(budget, None, key=LISTED)

    assert spend(9, script).billed == 0


def test_nothing_is_submitted_beside_a_cost_that_is_neither_reported_nor_published() -> None:
    async def script(budget: Budget) -> None:
        earlier = budget.track(DEV)
        earlier.settle(None)
        earlier.close()
        with pytest.raises(NotSubmittedError, match="the API does not report the cost of dev"):
            await submit(budget, None, key=LISTED)

    spend(100, script)


@pytest.mark.parametrize("keys", [[DEV] * 4, [DEV, PRO, DEV, PRO]])
def test_a_job_of_unknown_price_is_submitted_alone(keys: list[PriceKey]) -> None:
    unpriced = max_unpriced = 0

    async def submit_one(budget: Budget, key: PriceKey) -> None:
        nonlocal unpriced, max_unpriced
        with await budget.reserve(key) as reservation:
            unpriced += 1
            max_unpriced = max(max_unpriced, unpriced)
            submitted.add(key)
            assert unpriced == 1 or submitted == priced
            await asyncio.sleep(0)
            reservation.record_cost(2.5)
            priced.add(key)
            unpriced -= 1

    async def script(budget: Budget) -> None:
        await asyncio.gather(*(submit_one(budget, key) for key in keys))

    submitted: set[PriceKey] = set()
    priced: set[PriceKey] = set()
    assert spend(10, script).billed == 10
    assert max_unpriced > 1


def test_an_expensive_job_is_refused_and_a_cheaper_one_is_not() -> None:
    async def script(budget: Budget) -> None:
        await submit(budget, 1)
        await submit(budget, 5, key=PRO)
        with pytest.raises(MaxCostError):
            await submit(budget, 5, key=PRO)
        await submit(budget, 1)

    assert spend(8, script).billed == 7


def test_a_job_of_an_earlier_attempt_is_waited_for_and_counted() -> None:
    async def script(budget: Budget) -> None:
        earlier = budget.track(DEV)
        earlier.record_cost(None)
        another = asyncio.create_task(submit(budget, 4, key=PRO))
        await asyncio.sleep(0)
        with earlier:
            earlier.settle(6)
        with pytest.raises(MaxCostError):
            await submit(budget, 6)
        await another

    assert spend(10, script).billed == 10


@pytest.mark.parametrize("settled", [1.0, 4.0])
def test_the_settled_cost_replaces_the_estimate(settled: float) -> None:
    async def script(budget: Budget) -> None:
        with await budget.reserve(DEV) as reservation:
            reservation.record_cost(2.5)
            reservation.settle(settled)
            reservation.record_cost(2.5)
        assert reservation.cost == settled

    assert spend(None, script).billed == settled


@pytest.mark.parametrize(
    "request_",
    [{"width": 2048}, {"resolution": "4k"}, {"input_image": "sha256:a"}, {"images": ["sha256:a", "sha256:b"]}],
)
def test_price_key_depends_on_size_and_input_images_only(request_: dict[str, Any]) -> None:
    assert price_key("pro", request_) != price_key("pro", {"prompt": "a pear", "seed": 7}) == PRO


def test_without_max_cost_nothing_is_refused() -> None:
    async def script(budget: Budget) -> None:
        await asyncio.gather(*(submit(budget, cost) for cost in (None, 1.0, None, 4.0)))

    assert spend(None, script).billed == 5
