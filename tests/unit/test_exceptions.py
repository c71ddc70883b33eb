"""An error says what happened, what became of the money, and what a retry does."""

from __future__ import annotations

import logging
import re
import traceback

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client.catalogue.validation import build_request
from airflow_provider_flux.failures import airflow_errors, retry_sentence
from scripts import error_list

AGAIN = "A retry buys again."
CLASSES = error_list.classes()
PERMANENT = [cls for cls in CLASSES if not cls.retryable]
TRANSIENT = [cls for cls in CLASSES if cls.retryable]


def test_the_tree_at_the_top_of_the_module_has_every_error_below_its_base() -> None:
    parents: list[str] = []
    tree: dict[str, str] = {}
    for indent, name in re.findall(r"^    ([ │├└─]*)(Flux\w+)", str(errors.__doc__), re.MULTILINE):
        del parents[len(indent) // 4 :]
        tree[name] = parents[-1] if parents else "Exception"
        parents.append(name)
    every: list[type[errors.FluxError]] = [errors.FluxError, *CLASSES]
    assert tree == {cls.__name__: cls.__bases__[0].__name__ for cls in every}, "correct the tree in exceptions.py"


@pytest.mark.parametrize("cls", PERMANENT)
def test_permanent_error_fails_the_task(cls: type[errors.FluxError]) -> None:
    with pytest.raises(cls) as caught, airflow_errors(lambda error: AGAIN if error.retryable else ""), airflow_errors():
        raise cls("It broke.", job_id="abc")
    assert isinstance(caught.value, AirflowFailException)
    assert str(caught.value).startswith("It broke.")
    assert cls.hint in str(caught.value)
    assert AGAIN not in str(caught.value)


@pytest.mark.parametrize("cls", TRANSIENT)
def test_retryable_error_names_what_the_retry_does(cls: type[errors.FluxError]) -> None:
    with pytest.raises(cls) as caught, airflow_errors(lambda error: AGAIN if error.retryable else ""):
        raise cls("It broke.", job_id="abc")
    assert not isinstance(caught.value, AirflowFailException)
    assert str(caught.value).endswith(AGAIN)
    assert caught.value.billing in str(caught.value)


@pytest.mark.parametrize(
    ("error", "has_receipt", "says"),
    [
        (errors.FluxServiceError("It broke."), True, "starts over"),
        (errors.FluxTimeoutError("It broke.", job_id="abc"), True, "resumes the same job and is not billed again"),
        (errors.FluxTimeoutError("It broke.", job_id="abc"), False, "a new job, which is billed separately"),
        (errors.FluxUncertainSubmitError("It broke."), True, "may be billed a second time"),
        (errors.FluxJobFailedError("It broke.", job_id="abc"), True, "submits a new job"),
        (errors.FluxModeratedError("It broke.", job_id="abc"), True, ""),
    ],
)
def test_retry_sentence_of_each_error(error: errors.FluxError, has_receipt: bool, says: str) -> None:
    told = retry_sentence(error, has_receipt, "resubmit")
    assert says in told
    assert bool(told) is bool(says)


def test_log_has_a_line_per_fault_and_one_for_the_billing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(errors.FluxBadRequestError), airflow_errors(lambda error: AGAIN), airflow_errors():
        build_request("flux-dev", {"prompt": "a pear", "width": "wide", "steps": 5000})
    lines = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == [logging.ERROR] * 3
    width, steps, money = (line for _, line in lines)
    assert width.startswith("Invalid request for flux-dev: width ")
    assert steps.startswith("Invalid request for flux-dev: steps ")
    assert money.startswith("Nothing was billed. Correct the parameters")


def test_log_lists_more_faults_than_the_message(caplog: pytest.LogCaptureFixture) -> None:
    faults = [f"request {index}: no" for index in range(150)]
    with pytest.raises(errors.FluxBadRequestError), airflow_errors():
        raise errors.FluxBadRequestError("150 problems: request 0: no ...", faults=faults)
    assert caplog.messages[:-1] == [*faults[:100], "... and 50 more."]


@pytest.mark.parametrize("cls", [errors.FluxUnsafeUrlError, errors.FluxServiceError])
def test_cause_of_an_error_is_hidden(cls: type[errors.FluxError]) -> None:
    def fetch() -> None:
        try:
            raise ValueError("https://delivery.bfl.ai/x.png?sig=secret")
        except ValueError as error:
            raise cls("It broke.", job_id="abc") from error

    with pytest.raises(cls) as caught, airflow_errors(), airflow_errors():
        fetch()
    shown = "".join(traceback.format_exception(caught.value))
    assert "It broke." in shown
    assert "secret" not in shown
    assert "in fetch" not in shown


@pytest.mark.parametrize("cls", CLASSES)
def test_error_round_trip_through_an_event(cls: type[errors.FluxError]) -> None:
    error = cls("It broke.", job_id="abc")
    again = errors.error_from_dict(error.to_dict())
    assert type(again) is cls
    assert (str(again), again.job_id) == (str(error), "abc")


def test_unknown_error_class_becomes_a_service_error() -> None:
    assert type(errors.error_from_dict({"error": "FluxNovelError"})) is errors.FluxServiceError
