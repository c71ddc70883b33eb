"""What is bought, whatever receipt is found and whatever the policies: submits are counted at a stub of the hook."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_flux import metrics
from airflow_provider_flux.client import errors
from airflow_provider_flux.client.client import FluxClient
from airflow_provider_flux.client.gateways import make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.images.receipts import FluxReceiptError, Receipt, Run, read_receipt
from airflow_provider_flux.images.recipe import fingerprint
from airflow_provider_flux.images.stores import FluxStoreError
from airflow_provider_flux.operators.purchase import Purchase, outcome_noted

CLIENT = FluxClient(make_endpoint(None, "key"))
REQUEST = {"prompt": "a red kite"}
RUN = Run("dag", "generate", "run-1", 3)
SAME_RUNS = [RUN, replace(RUN, map_index=4)]  # its place in a mapped list may change between tries
OTHER_RUNS = [replace(RUN, run_id="run-2"), replace(RUN, task_id="upload"), replace(RUN, dag_id="other")]
IMAGE = {"id": "old", "uri": "memory", "bytes": 7, "sha256": "beef"}
EARLIER = Receipt(
    "failed", fingerprint("flux-dev", REQUEST), "flux-dev", REQUEST, RUN, Job("old").to_dict(), seed=7, orphans=2
)

# found: no submit; buy: one submit, as if nothing had been found; again: one submit, which knows of the orphans before;
# orphan and lost: so too, if on_orphan and on_expired allow it.
TABLE = """
            run/same  run/other  always/same  always/other  never/same  never/other
intent      orphan    buy        orphan       orphan        orphan      buy
submitted   found     buy        found        found         buy         buy
stored      found     buy        found        found         buy         buy
failed      again     buy        again        again         buy         buy
expired     lost      buy        lost         again         buy         buy
"""
COLUMNS, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CASES = [(row[0], *column.split("/"), end) for row in ROWS for column, end in zip(COLUMNS, row[1:], strict=True)]


class Hook:
    """Counts what is bought."""

    endpoint = CLIENT.endpoint

    def __init__(self, error: errors.FluxError | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.error = error

    def submit(self, model: str, parameters: dict[str, Any], queue: bool = True) -> Job:
        self.requests.append(parameters)
        if self.error is not None:
            raise self.error
        return Job("new", model, submitted_at=1.0)


class Book:
    """Keeps the receipt as the document that it is."""

    where = "memory.json"

    def __init__(self, text: str | None) -> None:
        self.text = text

    def read(self) -> Receipt | None:
        return None if self.text is None else read_receipt(self.text, self.where)

    def write(self, receipt: Receipt) -> None:
        self.text = receipt.to_json()


class Shelf:
    """A store that holds the image, does not, or cannot tell."""

    uri = "memory"

    def __init__(self, holds: bool | Exception) -> None:
        self._holds = holds

    def holds(self, size: int, sha256: str) -> bool:
        assert (size, sha256) == (IMAGE["bytes"], IMAGE["sha256"])
        if isinstance(self._holds, Exception):
            raise self._holds
        return self._holds


def earlier(state: Any, run: Run = RUN) -> Receipt:
    return replace(
        EARLIER,
        state=state,
        run=run,
        job=None if state == "intent" else EARLIER.job,
        image=IMAGE if state == "stored" else None,
    )


def purchase(book: Book, holds: bool | Exception = True, **policies: Any) -> Any:
    """Typed as anything, since its hook is a stub."""
    images = InputImages("flux-dev", CLIENT, None)
    store: Any = Shelf(holds)
    return Purchase("flux-dev", REQUEST, images, RUN, book, store, **policies)


@pytest.mark.parametrize("on_expired", ["fail", "resubmit"])
@pytest.mark.parametrize("on_orphan", ["fail", "resubmit"])
@pytest.mark.parametrize(("state", "reuse", "run", "end"), CASES)
def test_what_is_bought(state: str, reuse: str, run: str, end: str, on_orphan: str, on_expired: str) -> None:
    for found_run in SAME_RUNS if run == "same" else OTHER_RUNS:
        hook, book = Hook(), Book(earlier(state, found_run).to_json())
        wanted = purchase(book, reuse=reuse, on_orphan=on_orphan, on_expired=on_expired)
        refusal: dict[tuple[str, str, str], Any] = {
            ("orphan", "fail", on_expired): errors.FluxOrphanError,
            ("lost", on_orphan, "fail"): errors.FluxImageExpiredError,
        }
        if error := refusal.get((end, on_orphan, on_expired)):
            with pytest.raises(error, match=r"delete (memory\.json|it)"):
                wanted.obtain(hook)
            assert not hook.requests
            assert read_receipt(book.text or "", "here") == earlier(state, found_run)
            continue
        receipt = wanted.obtain(hook)
        assert receipt.paid_job().id == ("old" if end == "found" else "new")
        wanted_request = REQUEST if end == "buy" else {"seed": 7, **REQUEST}
        assert hook.requests == ([] if end == "found" else [wanted_request])
        assert receipt.state == ("stored" if state == "stored" and end == "found" else "submitted")
        assert receipt.orphans == {"orphan": 3, "buy": 0}.get(end, 2)
        if end != "found":
            assert read_receipt(book.text or "", "here") == receipt


@pytest.mark.parametrize("reuse", ["run", "always", "never"])
@pytest.mark.parametrize("found", ["submitted", "stored"])
def test_two_images_of_a_mapped_task_in_one_place_are_refused(found: str, reuse: str) -> None:
    other = replace(earlier(found, replace(RUN, map_index=4)), fingerprint="f00d")
    hook, book = Hook(), Book(other.to_json())
    with pytest.raises(
        errors.FluxBadRequestError, match=r"job old.*map index 4.*output_uri of its own.*Nothing was paid"
    ):
        purchase(book, reuse=reuse).obtain(hook)
    assert not hook.requests
    assert read_receipt(book.text or "", "here") == other


def test_a_paid_job_of_another_run_is_named_before_its_place_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    other = replace(earlier("submitted", replace(RUN, run_id="run-2")), fingerprint="f00d")
    hook, book = Hook(), Book(other.to_json())
    assert purchase(book).obtain(hook).paid_job().id == "new"
    assert "job old of task generate in run run-2, which is paid for" in caplog.text


@pytest.mark.parametrize("reuse", ["run", "always", "never"])
@pytest.mark.parametrize("found", [None, *(state for state, *_ in ROWS)])
def test_another_recipe_or_none_is_bought_whatever_the_policies(found: str | None, reuse: str) -> None:
    other = replace(earlier(found), fingerprint="f00d") if found else None
    hook, book = Hook(), Book(other.to_json() if other else None)
    receipt = purchase(book, reuse=reuse, on_orphan="fail", on_expired="fail").obtain(hook)
    assert (hook.requests, receipt.paid_job().id, receipt.orphans) == ([REQUEST], "new", 0)


def test_an_image_that_is_not_where_its_receipt_says_is_taken_from_its_job() -> None:
    hook = Hook()
    receipt = purchase(Book(earlier("stored").to_json()), holds=False).obtain(hook)
    assert (receipt.state, receipt.paid_job().id, hook.requests) == ("submitted", "old", [])
    with pytest.raises(FluxStoreError, match=r"Nobody can tell whether memory holds.*Job old is finished and paid for"):
        purchase(Book(earlier("stored").to_json()), holds=OSError("down")).obtain(hook)
    assert not hook.requests


def test_an_image_that_was_put_before_its_receipt_knew_is_found() -> None:
    book, hook = Book(replace(earlier("submitted"), image=IMAGE).to_json()), Hook()
    assert purchase(book).obtain(hook).state == "stored"
    assert (read_receipt(book.text or "", "here").state, hook.requests) == ("stored", [])


@pytest.mark.parametrize("reuse", ["run", "always", "never"])
@pytest.mark.parametrize("change", [{"version": 2}, {"format": "another"}, {"state": "novel"}, {"job": None}])
def test_what_is_no_receipt_of_this_version_stops_every_policy(change: dict[str, Any], reuse: str) -> None:
    text = json.dumps({**json.loads(earlier("submitted").to_json()), **change})
    hook, book = Hook(), Book(text)
    with pytest.raises(FluxReceiptError, match=r"memory\.json is .*Nothing was paid"):
        purchase(book, reuse=reuse).obtain(hook)
    assert (hook.requests, book.text) == ([], text)


@pytest.mark.parametrize(
    ("error", "seed"),
    [
        (errors.FluxModeratedError("no", job_id="old"), None),
        (errors.FluxJobNotFoundError("gone", job_id="old"), 7),
    ],
)
def test_a_lost_image_is_bought_again_with_its_seed_unless_that_was_moderated(
    error: errors.FluxError, seed: int | None
) -> None:
    book, hook = Book(earlier("submitted").to_json()), Hook()
    with pytest.raises(type(error)), outcome_noted(book, "resubmit"):
        raise error
    purchase(book, on_expired="resubmit").obtain(hook)
    assert hook.requests[0].get("seed") == seed


@pytest.mark.parametrize("on_orphan", ["fail", "resubmit"])
def test_a_submit_whose_answer_was_lost_is_tried_again_only_if_told(on_orphan: str) -> None:
    book = Book(None)
    for reuse in ("run", "never"):
        with pytest.raises(errors.FluxUncertainSubmitError) as caught:
            lost = errors.FluxUncertainSubmitError("The answer was lost.")
            purchase(book, reuse=reuse, on_orphan=on_orphan).obtain(Hook(lost))
        assert caught.value.retryable is (on_orphan == "resubmit")
        assert read_receipt(book.text or "", "here").state == "intent"


def test_the_receipt_of_a_paid_job_is_written_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(None)
    monkeypatch.setattr(metrics, "submitted", lambda tags: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        purchase(book).obtain(Hook())
    assert read_receipt(book.text or "", "here").paid_job().id == "new"
