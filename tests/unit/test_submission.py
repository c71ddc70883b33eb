"""What is bought, whatever receipt is found and whatever the policies: submits are counted at a stub of the hook."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux import metrics
from airflow_provider_flux.client.client import FluxClient
from airflow_provider_flux.client.gateways import make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.exceptions import FluxImageExistsError, FluxReceiptError, FluxStoreError
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.receipts.lifecycle import failure_recorded
from airflow_provider_flux.receipts.receipt import Receipt, new_claim, read_receipt
from airflow_provider_flux.receipts.recipe import fingerprint
from airflow_provider_flux.receipts.stores import ReceiptConflictError
from airflow_provider_flux.receipts.submission import Submission
from airflow_provider_flux.results import ImageResult

CLIENT = FluxClient(make_endpoint(None, "key"))
REQUEST = {"prompt": "a red kite"}
RUN = TaskIdentity("dag", "generate", "run-1", 3)
SAME_RUNS = [RUN, replace(RUN, map_index=4)]  # its place in a mapped list may change between tries
OTHER_RUNS = [replace(RUN, run_id="run-2"), replace(RUN, task_id="upload"), replace(RUN, dag_id="other")]
IMAGE = ImageResult(id="old", uri="memory", bytes=7, sha256="beef")
EARLIER = Receipt("failed", fingerprint("flux-dev", REQUEST), "flux-dev", REQUEST, RUN, Job("old"), seed=7, orphans=2)

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

    def submit(
        self,
        model: str,
        parameters: dict[str, Any],
        wait_for_capacity: bool = True,
        before_request: Callable[[], object] = list,
    ) -> Job:
        before_request()
        self.requests.append(parameters)
        self.during()
        if self.error is not None:
            raise self.error
        return Job("new", model, cost=4.0, submitted_at=1.0)

    def during(self) -> None:
        """What happens while the request is on its way."""


class Receipts:
    """Keeps the receipt as the document that it is; several of them share one place."""

    location = "memory.json"

    def __init__(self, text: str | None, place: list[str | None] | None = None) -> None:
        self.place = [text] if place is None else place
        self.seen: str | None = None

    @property
    def text(self) -> str | None:
        return self.place[0]

    def another(self) -> Receipts:
        """The same place, as another process has it."""
        return Receipts(None, self.place)

    def read(self) -> Receipt | None:
        self.seen = self.text
        return None if self.text is None else read_receipt(self.text, self.location)

    def write(self, receipt: Receipt) -> None:
        if self.text != self.seen:
            raise ReceiptConflictError
        self.place[0] = self.seen = receipt.to_json()


class StoreStub:
    """A store that holds the image, does not, or cannot tell."""

    uri = "memory"

    def __init__(self, holds: bool | Exception) -> None:
        self._holds = holds

    def exists(self) -> bool:
        return self._holds is True

    def matches(self, size: int, sha256: str) -> bool:
        assert (size, sha256) == (IMAGE.bytes, IMAGE.sha256)
        if isinstance(self._holds, Exception):
            raise self._holds
        return self._holds


def earlier(state: Any, run: TaskIdentity = RUN) -> Receipt:
    return replace(
        EARLIER,
        state=state,
        run=run,
        job=None if state == "intent" else EARLIER.job,
        image=IMAGE if state == "stored" else None,
    )


def submission(receipts: Receipts, holds: bool | Exception = True, run: TaskIdentity = RUN, **policies: Any) -> Any:
    """Typed as anything, since its hook is a stub."""
    images = InputImages("flux-dev", CLIENT, None)
    store: Any = StoreStub(holds)
    return Submission("flux-dev", REQUEST, images, run, receipts, store, **policies)


@pytest.mark.parametrize("on_expired", ["fail", "resubmit"])
@pytest.mark.parametrize("on_orphan", ["fail", "resubmit"])
@pytest.mark.parametrize(("state", "reuse", "run", "end"), CASES)
def test_submit_decision_table(state: str, reuse: str, run: str, end: str, on_orphan: str, on_expired: str) -> None:
    for found_run in SAME_RUNS if run == "same" else OTHER_RUNS:
        hook, receipts = Hook(), Receipts(earlier(state, found_run).to_json())
        wanted = submission(receipts, reuse=reuse, on_orphan=on_orphan, on_expired=on_expired)
        refusal: dict[tuple[str, str, str], Any] = {
            ("orphan", "fail", on_expired): errors.FluxOrphanError,
            ("lost", on_orphan, "fail"): errors.FluxImageExpiredError,
        }
        if error := refusal.get((end, on_orphan, on_expired)):
            with pytest.raises(error, match=r"delete (memory\.json|it)"):
                wanted.get_or_submit(hook)
            assert not hook.requests
            assert read_receipt(receipts.text or "", "here") == earlier(state, found_run)
            continue
        receipt = wanted.get_or_submit(hook)
        assert receipt.paid_job.id == ("old" if end == "found" else "new")
        wanted_request = REQUEST if end == "buy" else {"seed": 7, **REQUEST}
        assert hook.requests == ([] if end == "found" else [wanted_request])
        assert receipt.state == ("stored" if state == "stored" and end == "found" else "submitted")
        assert receipt.orphans == {"orphan": 3, "buy": 0}.get(end, 2)
        if end != "found":
            assert read_receipt(receipts.text or "", "here") == receipt


@pytest.mark.parametrize("reuse", ["run", "always", "never"])
@pytest.mark.parametrize("found", ["submitted", "stored"])
def test_mapped_images_with_one_destination_are_refused(found: str, reuse: str) -> None:
    other = replace(earlier(found, replace(RUN, map_index=4)), fingerprint="f00d")
    hook, receipts = Hook(), Receipts(other.to_json())
    with pytest.raises(
        errors.FluxBadRequestError, match=r"job old.*map index 4.*output_uri of its own.*Nothing was billed"
    ):
        submission(receipts, reuse=reuse).get_or_submit(hook)
    assert not hook.requests
    assert read_receipt(receipts.text or "", "here") == other


@pytest.mark.parametrize(("found", "says"), [("stored", "holds the image of"), ("submitted", "is reserved for")])
@pytest.mark.parametrize("print_", [fingerprint("flux-dev", REQUEST), "f00d"])
def test_image_of_another_run_is_named_when_replaced_or_kept(
    caplog: pytest.LogCaptureFixture, found: str, says: str, print_: str
) -> None:
    other = replace(earlier(found, replace(RUN, run_id="run-2")), fingerprint=print_)
    other = replace(other, job=replace(other.paid_job, cost=2.5))
    named = rf"memory {says} job old \(task generate of DAG dag, run run-2, 2.5 credits \(\$0\.025\)\).*"
    hook, receipts = Hook(), Receipts(other.to_json())
    with pytest.raises(FluxImageExistsError, match=rf"{named}replace=False keeps it\. Nothing was billed"):
        submission(receipts, replace=False).get_or_submit(hook)
    assert (hook.requests, receipts.text, caplog.text) == ([], other.to_json(), "")
    assert submission(receipts).get_or_submit(hook).paid_job.id == "new"
    assert len(re.findall(f"{named}This task replaces it", caplog.text)) == 1


def test_replace_false_keeps_an_object_without_a_receipt_and_takes_ones_own() -> None:
    hook = Hook()
    with pytest.raises(FluxImageExistsError, match="memory exists, and replace=False keeps it"):
        submission(Receipts(None), replace=False).get_or_submit(hook)
    assert not hook.requests
    submission(Receipts(None), holds=False, replace=False).get_or_submit(hook)
    own = replace(earlier("stored"), fingerprint="f00d")
    submission(Receipts(own.to_json()), replace=False).get_or_submit(hook)
    assert len(hook.requests) == 2


@pytest.mark.parametrize("reuse", ["run", "always", "never"])
@pytest.mark.parametrize("found", [None, *(state for state, *_ in ROWS)])
def test_other_recipe_is_submitted_under_every_policy(found: str | None, reuse: str) -> None:
    other = replace(earlier(found), fingerprint="f00d") if found else None
    hook, receipts = Hook(), Receipts(other.to_json() if other else None)
    receipt = submission(receipts, reuse=reuse, on_orphan="fail", on_expired="fail").get_or_submit(hook)
    assert (hook.requests, receipt.paid_job.id, receipt.orphans) == ([REQUEST], "new", 0)


def test_missing_image_is_resumed_from_its_job() -> None:
    hook = Hook()
    receipt = submission(Receipts(earlier("stored").to_json()), holds=False).get_or_submit(hook)
    assert (receipt.state, receipt.paid_job.id, hook.requests) == ("submitted", "old", [])
    with pytest.raises(
        FluxStoreError,
        match=r"Could not check whether the image is stored at memory.*Job old is finished and was billed",
    ):
        submission(Receipts(earlier("stored").to_json()), holds=OSError("down")).get_or_submit(hook)
    assert not hook.requests


def test_stored_image_without_record_is_found() -> None:
    receipts, hook = Receipts(replace(earlier("submitted"), image=IMAGE).to_json()), Hook()
    assert submission(receipts).get_or_submit(hook).state == "stored"
    assert (read_receipt(receipts.text or "", "here").state, hook.requests) == ("stored", [])


@pytest.mark.parametrize("reuse", ["run", "always", "never"])
@pytest.mark.parametrize("change", [{"version": 2}, {"format": "another"}, {"state": "novel"}, {"job": None}])
def test_unreadable_receipt_prevents_the_submit_under_every_policy(change: dict[str, Any], reuse: str) -> None:
    text = json.dumps({**json.loads(earlier("submitted").to_json()), **change})
    hook, receipts = Hook(), Receipts(text)
    with pytest.raises(FluxReceiptError, match=r"memory\.json is .*Nothing was billed"):
        submission(receipts, reuse=reuse).get_or_submit(hook)
    assert (hook.requests, receipts.text) == ([], text)


@pytest.mark.parametrize(
    ("error", "seed"),
    [
        (errors.FluxModeratedError("no", job_id="old"), None),
        (errors.FluxJobNotFoundError("gone", job_id="old"), 7),
    ],
)
def test_expired_image_is_resubmitted_with_its_seed_unless_moderated(error: errors.FluxError, seed: int | None) -> None:
    receipts, hook = Receipts(earlier("submitted").to_json()), Hook()
    with pytest.raises(type(error)), failure_recorded(receipts, "resubmit"):
        raise error
    submission(receipts, on_expired="resubmit").get_or_submit(hook)
    assert hook.requests[0].get("seed") == seed


@pytest.mark.parametrize("on_orphan", ["fail", "resubmit"])
def test_uncertain_submit_is_retried_only_by_policy(on_orphan: str) -> None:
    receipts = Receipts(None)
    for reuse in ("run", "never"):
        with pytest.raises(errors.FluxUncertainSubmitError) as caught:
            lost = errors.FluxUncertainSubmitError("The answer was lost.")
            submission(receipts, reuse=reuse, on_orphan=on_orphan).get_or_submit(Hook(lost))
        assert caught.value.retryable is (on_orphan == "resubmit")
        assert read_receipt(receipts.text or "", "here").state == "intent"


def test_the_receipt_of_a_paid_job_is_written_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    receipts = Receipts(None)
    monkeypatch.setattr(metrics, "submitted", lambda tags: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        submission(receipts).get_or_submit(Hook())
    assert read_receipt(receipts.text or "", "here").paid_job.id == "new"


ALWAYS: dict[str, Any] = {"reuse": "always", "on_orphan": "fail"}
OTHER = replace(RUN, run_id="run-2")


class Meanwhile(Hook):
    """While its request is on its way, another process does something."""

    def __init__(self, during: Callable[[], None]) -> None:
        super().__init__()
        self.during = during  # type: ignore[method-assign]  # a stub


def test_valid_claim_of_another_process_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever it is: its job is found, and nothing is submitted, nothing is an orphan."""
    for run in (RUN, OTHER):
        receipts = Receipts(replace(earlier("intent", run), claim=new_claim(60)).to_json())
        waits: list[float] = []

        def sleep(seconds: float, receipts: Receipts = receipts, waits: list[float] = waits, run: Any = run) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                receipts.place[0] = earlier("submitted", run).to_json()

        monkeypatch.setattr(time, "sleep", sleep)
        hook = Hook()
        found = submission(receipts, **ALWAYS).get_or_submit(hook)
        assert (found.state, found.paid_job.id, hook.requests) == ("submitted", "old", [])
        assert len(waits) == 3


def test_expired_claim_is_an_orphan() -> None:
    for claim in (None, new_claim(-1)):
        receipts, hook = Receipts(replace(earlier("intent"), claim=claim).to_json()), Hook()
        with pytest.raises(errors.FluxOrphanError):
            submission(receipts, on_orphan="fail").get_or_submit(hook)
        assert submission(receipts).get_or_submit(hook).orphans == EARLIER.orphans + 1


def test_one_of_two_concurrent_claims_submits() -> None:
    """The other one reads before the claim and writes after it."""
    first, second = Receipts(None), Hook()
    other = first.another()

    def read_late() -> Receipt | None:
        found = Receipts.read(other)
        if not second.requests and first.text is None:
            submission(first, run=OTHER, **ALWAYS).get_or_submit(second)
        return found

    other.read = read_late  # type: ignore[method-assign]  # a stub
    hook = Hook()
    found = submission(other, **ALWAYS).get_or_submit(hook)
    assert (len(second.requests), len(hook.requests)) == (1, 0)
    assert found.paid_by_other_than(RUN) == OTHER


def test_lost_claim_prevents_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped between claim and request, for longer than its claim lasts."""
    receipts, hook, thawed = Receipts(None), Hook(), Hook()
    real = thawed.submit

    def frozen(*arguments: Any, **named: Any) -> Job:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 100)
        receipts.place[0] = replace(read_receipt(receipts.text or "", "here"), claim=new_claim(-1)).to_json()
        submission(receipts.another(), run=OTHER, reuse="always").get_or_submit(hook)
        return real(*arguments, **named)

    thawed.submit = frozen  # type: ignore[method-assign]  # a stub
    found = submission(receipts, reuse="always").get_or_submit(thawed)
    assert (len(hook.requests), len(thawed.requests)) == (1, 0)
    assert found.paid_by_other_than(RUN) == OTHER


def test_job_of_a_suspended_process_is_recorded_as_unused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receipts = Receipts(None)

    def take_over() -> None:
        taken = earlier("submitted", OTHER)
        receipts.place[0] = taken.to_json()

    found = submission(receipts, reuse="always").get_or_submit(Meanwhile(take_over))
    assert found.paid_job.id == "old"
    kept = read_receipt(receipts.text or "", "here")
    assert [(job.id, job.cost, run) for job, run in kept.duplicates] == [("new", 4.0, RUN)]
    assert "Job new (4 credits ($0.04)) is the second submit for one image" in caplog.text
    assert (found.unused_cost(RUN), found.unused_cost(OTHER)) == (4.0, 0)


def test_job_replaces_a_later_claim() -> None:
    """The process that claimed it finds the job before it sends, or after."""
    receipts = Receipts(None)

    def take_over() -> None:
        receipts.place[0] = replace(earlier("intent", OTHER), claim=new_claim(60)).to_json()

    found = submission(receipts, reuse="always").get_or_submit(Meanwhile(take_over))
    assert found.paid_job.id == "new"
    assert read_receipt(receipts.text or "", "here").paid_job.id == "new"


@pytest.mark.parametrize("end", [KeyboardInterrupt(), errors.FluxUncertainSubmitError("lost")])
def test_claim_is_released_however_the_submit_ends(end: BaseException) -> None:
    receipts = Receipts(None)

    def fail() -> None:
        raise end

    with pytest.raises(type(end)):
        submission(receipts).get_or_submit(Meanwhile(fail))
    left = read_receipt(receipts.text or "", "here")
    assert (left.state, left.claim) == ("intent", None)


@pytest.mark.parametrize("holds", [True, False])
def test_a_preview_of_an_image_whose_receipt_is_behind_writes_nothing(holds: bool) -> None:
    written = replace(earlier("submitted"), image=IMAGE).to_json()
    receipts = Receipts(written)
    found = submission(receipts, holds=holds).preview()
    assert found.state == ("stored" if holds else "submitted")
    assert receipts.text == written
