"""An error says what happened, what became of the money, and what a retry does."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux.client import errors
from airflow_provider_flux.exceptions import airflow_errors
from airflow_provider_flux.images import stores

PERMANENT = [
    errors.FluxBadRequestError,
    errors.FluxAuthenticationError,
    errors.FluxCreditsError,
    errors.FluxConfigurationError,
    errors.FluxModeratedError,
    errors.FluxUnsafeUrlError,
    stores.FluxStoreUnusableError,
    stores.FluxImageExistsError,
]
TRANSIENT = [
    errors.FluxRateLimitError,
    errors.FluxServiceError,
    errors.FluxUncertainSubmitError,
    errors.FluxJobFailedError,
    errors.FluxJobNotFoundError,
    errors.FluxTimeoutError,
    errors.FluxBadImageError,
    errors.FluxImageExpiredError,
    stores.FluxStoreError,
]


@pytest.mark.parametrize("cls", PERMANENT)
def test_what_a_retry_cannot_mend_is_not_retried(cls: type[errors.FluxError]) -> None:
    with pytest.raises(cls) as caught, airflow_errors("A retry buys again."), airflow_errors():
        raise cls("It broke.", job_id="abc")
    assert isinstance(caught.value, AirflowFailException)
    assert str(caught.value).startswith("It broke.")
    assert cls.mend in str(caught.value)
    assert "A retry buys again." not in str(caught.value)


@pytest.mark.parametrize("cls", TRANSIENT)
def test_what_a_retry_may_mend_says_what_the_retry_does(cls: type[errors.FluxError]) -> None:
    with pytest.raises(cls) as caught, airflow_errors("A retry buys again."):
        raise cls("It broke.", job_id="abc")
    assert not isinstance(caught.value, AirflowFailException)
    assert str(caught.value).endswith("A retry buys again.")
    assert caught.value.money in str(caught.value)


def test_a_retry_of_what_was_never_accepted_buys_nothing_twice() -> None:
    says = r"Nothing was paid\. A retry of this task tries again\.$"
    with pytest.raises(errors.FluxServiceError, match=says), airflow_errors("A retry buys again."):
        raise errors.FluxServiceError("It broke.")


@pytest.mark.parametrize("cls", [*PERMANENT, *TRANSIENT])
def test_an_error_survives_the_trigger_s_event(cls: type[errors.FluxError]) -> None:
    error = cls("It broke.", job_id="abc")
    again = errors.error_from_dict(error.to_dict())
    assert type(again) is cls
    assert (str(again), again.job_id) == (str(error), "abc")


def test_an_unknown_error_in_an_event_is_still_an_error() -> None:
    assert type(errors.error_from_dict({"error": "FluxNovelError"})) is errors.FluxServiceError
