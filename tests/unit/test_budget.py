"""The budget of a batch: what is set aside, given back, and refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from airflow_provider_flux.client import errors
from airflow_provider_flux.operators.budget import Budget, OverBudgetError


def spend(most: float | None, script: Callable[[Budget], Awaitable[None]]) -> Budget:
    async def run() -> Budget:
        budget = Budget(most)
        await script(budget)
        return budget

    return asyncio.run(run())


async def buy(budget: Budget, cost: float | None, error: errors.FluxError | None = None, model: str = "dev") -> None:
    try:
        async with budget.one(model) as charge:
            charge.tell(cost)
            if error is not None:
                raise error
    except errors.FluxError:
        pass


@pytest.mark.parametrize(
    ("error", "is_paid"),
    [
        (errors.FluxModeratedError("no", job_id="a"), False),
        (errors.FluxJobFailedError("no", job_id="a"), False),
        (errors.FluxBadRequestError("no"), False),
        (errors.FluxTimeoutError("late", job_id="a"), True),
        (errors.FluxUncertainSubmitError("lost"), True),
    ],
)
@pytest.mark.parametrize("cost", [2.5, None])
def test_only_what_costs_nothing_is_given_back(cost: float | None, error: errors.FluxError, is_paid: bool) -> None:
    async def script(budget: Budget) -> None:
        await buy(budget, 2.5)
        await buy(budget, cost, error)
        if is_paid:
            with pytest.raises(OverBudgetError, match="max_cost is reached"):
                await buy(budget, 2.5)
        else:
            await buy(budget, 2.5)

    assert spend(5, script).paid == (5.0 if (not is_paid or cost) else 2.5)


def test_without_told_costs_there_is_one_image_of_each_model() -> None:
    async def script(budget: Budget) -> None:
        for model in ("dev", "pro"):
            await buy(budget, None, model=model)
            with pytest.raises(OverBudgetError, match=f"the API does not tell what {model} costs"):
                await buy(budget, None, model=model)

    spend(100, script)


def test_while_a_price_is_unknown_one_goes_alone() -> None:
    running = most = 0

    async def one(budget: Budget) -> None:
        nonlocal running, most
        async with budget.one("dev") as charge:
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            if not budget.paid:
                assert running == 1
            charge.tell(2.5)
            await asyncio.sleep(0)
            running -= 1

    async def script(budget: Budget) -> None:
        await asyncio.gather(*(one(budget) for _ in range(4)))

    assert spend(10, script).paid == 10
    assert most > 1


def test_without_a_limit_nothing_is_refused() -> None:
    async def script(budget: Budget) -> None:
        await asyncio.gather(*(buy(budget, cost) for cost in (None, 1.0, None, 4.0)))

    assert spend(None, script).paid == 5
