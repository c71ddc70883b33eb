"""What must hold, whatever happened: checked at each write and each end of a process, and when all has come to rest."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux.exceptions import (
    FluxImageExistsError,
    FluxImageExpiredError,
    FluxJobFailedError,
    FluxModeratedError,
    FluxOrphanError,
    FluxStoreConfigurationError,
)
from airflow_provider_flux.receipts.receipt import Receipt, read_receipt
from tests.simulation.api import KEY, MODERATED, READY, SECRET, SIGNATURE, Api, Job
from tests.simulation.budgets import amounts, is_ledger
from tests.simulation.life import Airflow, TaskInstance
from tests.simulation.plans import PROMPT, Plan
from tests.simulation.store import Storage
from tests.simulation.world import Process, World

ONE_JOB = "1 one job"
STORED = "2 paid and stored"
RECEIPTS = "3 receipts"
MONEY = "4 money"
SECRETS = "5 secrets"
OWN_WORD = "6 ends by its own word"
ENDS = "7 all ends well"
BUDGET = "8 budget"

_MARGIN = 30.0
"""Seconds that a link must still live for an image to be expected."""


class Invariants:
    """Looks at one schedule."""

    def __init__(self, world: World, plan: Plan, api: Api, storage: Storage, airflow: Airflow) -> None:
        self.world, self.plan, self.api, self.storage, self.airflow = world, plan, api, storage, airflow
        self._manifests: dict[str, list[dict[str, Any]]] = {}
        self._ledgers: dict[str, bytes] = {}
        storage.watch = self.on_note
        storage.on_trouble = self.on_trouble
        storage.on_put = self.on_put

    # While it runs

    def on_note(self, place: str, old: bytes | None, new: bytes) -> None:
        """Look at a receipt as it is written."""
        if is_ledger(place):
            return self._look_at_ledger(place, new)
        self._find_secrets(place, new.decode(), may_have_prompt=True)
        try:
            now = read_receipt(new, place)
        except Exception as error:
            return self.world.violate(RECEIPTS, f"{place} cannot be read: {error}")
        for named in (now.job, *(unused.job for unused in now.duplicates)):
            if named is not None and (job := self.api.jobs.get(named.id)) is not None:
                job.attempt.is_open = False
                job.written_at = self.world.now if job.written_at is None else job.written_at
        if old is None or self.plan.policies["reuse"] == "never" or self._may_race(place):
            return None
        before = read_receipt(old, place)
        if before.fingerprint != now.fingerprint or before.state not in ("submitted", "stored"):
            return None
        if now.job is None:
            self.world.violate(RECEIPTS, f"{place} goes back from {before.job} to none")
        elif not before.is_of(now.job):
            self.world.violate(RECEIPTS, f"{place} forgets {before.job}")
        return None

    def _look_at_ledger(self, place: str, data: bytes) -> None:
        self._find_secrets(place, data.decode())
        self._ledgers[place] = data
        limit = self.plan.budget.credits
        if limit is None or "probe" in place:
            return
        if sum(amounts(data)) > limit + 1e-6:
            self.world.violate(BUDGET, f"{place} exceeds {limit}: {data.decode()}")

    def on_trouble(self, data: bytes) -> None:
        """Note that a receipt was not written because the store failed."""
        told = json.loads(data)
        if (job := self.api.jobs.get(str((told.get("job") or {}).get("id")))) is not None:
            job.trouble += 1
        if not told.get("job") and not told.get("claim"):
            self.storage.blind += 1

    def on_put(self, data: bytes, metadata: dict[str, str]) -> None:
        """Look at an image as it is stored."""
        self._find_secrets("an image's metadata", repr(metadata))
        if (job := self.api.jobs.get(metadata.get("job-id", ""))) is not None and job.image == data:
            job.stored_at = self.world.now

    def _may_race(self, place: str) -> bool:
        """Tell whether the place writes without a condition, and two tries of its task have been there at once."""
        return place.startswith("state of ") and any(
            task.zombies for task in self.airflow.tasks if place.startswith(f"state of {task.name}:")
        )

    def known_at_start(self, task: TaskInstance, event: Any) -> list[Job]:
        """Return the paid jobs that a process can know of when it begins."""
        # An event that says how the job ended leaves nothing to ask, unless it has just not ended in time.
        if isinstance(event, dict) and event.get("outcome") == "failed" and event.get("error") != "FluxTimeoutError":
            return []
        known = {receipt.job.id for receipt in self._receipts(task) if receipt.job is not None}
        if task.task_id == "upload":
            # Its place may have the image of a job that was paid for before that one.
            known = {str((paint.result or {}).get("id")) for paint in self.airflow.tasks if paint.downstream is task}
        if isinstance(event, dict) and "id" in event:
            # Another run's job may have taken the place meanwhile; this process resumes its own.
            known = {event["id"]}
        return [self.api.jobs[job_id] for job_id in sorted(known) if job_id in self.api.jobs]

    def _receipts(self, task: TaskInstance) -> list[Receipt]:
        places = [f"{uri}.json" for uri in self._uris(task)]
        notes = [self.storage.things.get(place) for place in places]
        return [read_receipt(note.data, "") for note in notes if note is not None]

    def _uris(self, task: TaskInstance) -> list[str]:
        if task.task_id == "paint" and self.plan.place != "store":
            return []
        return [self.plan.uri(task.run_id, recipe) for recipe in self.plan.recipes]

    def on_process_end(self, task: TaskInstance, process: Process, began: float, known: list[Job]) -> None:
        """Look at what a process that nothing happened to has left undone."""
        if process.faults or self.plan.policies["reuse"] == "never" or not self._uris(task):
            return
        if task.state == "deferred":
            # It has looked once, and the triggerer goes on.
            return
        if self.plan.options.get("wait_for_completion") is False and task.task_id == "paint":
            return
        for job in known:
            self._expect_image(job, task.run_id, began, process.name)

    def on_failure(self, process: Process, error: BaseException) -> None:
        """Look at an error that no retry follows: a job that is paid for must not be given up while it can be had."""
        job = self.api.jobs.get(str(getattr(error, "job_id", None)))
        if not isinstance(error, AirflowFailException) or job is None or job.fate != READY:
            return
        # An attempt that thaws finds its place taken by the job of a later one.
        if isinstance(error, (FluxImageExistsError, FluxStoreConfigurationError)) and process.faults:
            return
        if self.world.now < job.link_ends_at:
            self.world.violate(OWN_WORD, f"{process.name} gives up {job.id} with {_name(error)}")

    def on_success(self, task: TaskInstance) -> None:
        """Read the manifest that a task returns, before another run writes its own there."""
        if self.plan.kind == "batch":
            thing = self.storage.things[task.result["manifest"]]
            lines = thing.data.decode().splitlines()
            is_own = hashlib.sha256(thing.data).hexdigest() == task.result["manifest_sha256"]
            told = [line for line in map(json.loads, lines) if line["state"] == "stored"] if is_own else None
            self._manifests.pop(task.name, None)
            if told is not None:
                self._manifests[task.name] = told

    def on_trigger_end(self, task: TaskInstance, process: Process, began: float, kwargs: dict[str, Any]) -> None:
        """Look at what a trigger that nothing happened to has left undone."""
        job = self.api.jobs.get(str((kwargs.get("job") or {}).get("id")))
        if job is not None and kwargs.get("store") and not [at for at in process.faults if at >= began]:
            self._expect_image(job, task.run_id, began, process.name)

    def _expect_image(self, job: Job, run_id: str, began: float, who: str) -> None:
        if job.fate != READY or job.ends_at > began or job.link_ends_at < self.world.now + _MARGIN:
            return
        there = self.storage.things.get(self.plan.uri(run_id, job.recipe))
        if there is None or there.data != job.image:
            self.world.violate(STORED, f"{who} could have stored the image of {job.id}, and has not")

    def _find_secrets(self, where: str, text: str, may_have_prompt: bool = False) -> None:
        for secret in (KEY, SECRET, SIGNATURE, "sig=", *(() if may_have_prompt else (PROMPT,))):
            if secret in text:
                self.world.violate(SECRETS, f"{secret} in {where}: {text[:300]}")

    # At the end

    def check(self) -> None:
        """Look at everything once more, when all has come to rest."""
        for text in self.airflow.written:
            self._find_secrets("what is written", text)
        for text in self.airflow.results:
            self._find_secrets("a result", text)
        self._check_jobs()
        self._check_budget()
        for task in self.airflow.tasks:
            self._check_end(task)
            self._check_moderated(task)
            if task.state == "success" and task.result is not None:
                self._check_images(task)
                self._check_cost(task)

    def _check_jobs(self) -> None:
        if self.plan.place == "nowhere" or self.plan.policies["reuse"] == "never":
            return
        scopes: dict[str, list[Job]] = defaultdict(list)
        for job in self.api.jobs.values():
            scopes[job.recipe if self.plan.shared else f"{_run(job)} {job.recipe}"].append(job)
        for scope, jobs in scopes.items():
            if any(task.zombies for task in self.airflow.tasks) and self.plan.place == "state":
                continue
            asked = [job for number, job in enumerate(jobs) if not self._is_excused(job, jobs[number + 1 :])]
            if len(asked) > 1:
                told = ", ".join(f"{job.id} by {job.attempt.process.name}" for job in asked)
                self.world.violate(ONE_JOB, f"{scope} was paid for {len(asked)} times: {told}")

    def _check_budget(self) -> None:
        """The API must not have charged more than the budget, and the ledger must know of all of it."""
        limit = self.plan.budget.credits
        if limit is None:
            return
        charges = {READY: lambda job: job.charge, MODERATED: lambda job: job.cost}
        charged = sum(charges[job.fate](job) for job in self.api.jobs.values() if job.fate in charges)
        known = [amounts(data) for place, data in self._ledgers.items() if "probe" not in place]
        spent, reserved = known[0] if known else (0.0, 0.0)
        if charged > limit + 1e-6:
            self.world.violate(BUDGET, f"the API charged {charged} credits of {limit}")
        if spent + reserved < charged - 1e-6:
            self.world.violate(BUDGET, f"the ledger knows of {spent} and {reserved} credits; the API charged {charged}")
        is_calm = not self.world.counts.keys() - {"refused: no room"}
        if is_calm and reserved and all(task.state == "success" for task in self.airflow.tasks):
            self.world.violate(BUDGET, f"{reserved} credits stay reserved, though nothing has failed")

    def _is_excused(self, job: Job, later: list[Job]) -> bool:
        if job.fate != READY:
            return True
        if self.plan.policies["on_orphan"] == "resubmit" and (job.is_lost or job.attempt.disturbed):
            return True
        # The task state is read before it is written: a read that fails is trouble that no note shows.
        if job.written_at is None and (job.trouble or self.plan.place != "store"):
            return True
        return any(self._is_replaced(job, after) for after in later)

    def _is_replaced(self, job: Job, after: Job) -> bool:
        """Return whether a later job is there because this one was not known, or was lost."""
        unwritten = job.trouble and (job.written_at is None or job.written_at > after.accepted_at)
        other = self.plan.policies["on_expired"] == "resubmit" or _run(job) != _run(after)
        unstored = job.stored_at is None or job.stored_at > after.accepted_at
        expired = after.accepted_at > job.link_ends_at and unstored
        return unwritten or (other and expired)

    def _check_end(self, task: TaskInstance) -> None:
        if task.state in ("success", "skipped", "waiting"):
            return
        error = task.error
        if self.plan.budget.credits is not None and "budget" in str(error):
            return
        fate = any(job.fate != READY for job in self.api.jobs.values())
        # A job may take longer than its task waits for it, and more tries than there are.
        if self.api.is_slow and any(word in _name(error) for word in ("Timeout", "RateLimit", "Batch")):
            return
        if self.plan.kind == "batch" and (fate or "Expired" in str(error) or "Orphan" in str(error)):
            return
        if isinstance(error, (FluxModeratedError, FluxJobFailedError)) and fate:
            return
        if isinstance(error, FluxImageExpiredError):
            job = self.api.jobs.get(str(error.job_id))
            if job is not None and job.link_ends_at < self.world.now:
                return
        if isinstance(error, FluxOrphanError) and self._has_orphan():
            return
        self.world.violate(ENDS, f"{task.name} is {task.state}: {type(error).__name__}: {error}")

    def _has_orphan(self) -> bool:
        # Whoever dies right before its request leaves the same receipt as one that dies right after it.
        died = sum(self.world.counts[kind] for kind in ("killed", "frozen", "interrupted"))
        if self.plan.place != "store" and self.world.counts["store: before"] + self.world.counts["store: after"]:
            # A claim that could not be given up: the task state fails in the look before the write, too.
            return True
        if any(job.written_at is None and job.trouble for job in self.api.jobs.values()):
            return True
        return died + self.storage.blind > 0 or any(job.is_lost for job in self.api.jobs.values())

    def _check_images(self, task: TaskInstance) -> None:
        if self.plan.policies["reuse"] == "never" and self.world.counts["frozen"]:
            # An attempt that thaws pays for another image, as its author wants, and puts it in this place.
            return
        for told in self._told(task):
            job, uri = self.api.jobs.get(str(told.get("id"))), told.get("uri")
            if job is None:
                self.world.violate(STORED, f"{task.name} tells of {told.get('id')}, which is no job")
            elif uri:
                there = self.storage.things.get(uri)
                if there is None or there.data != job.image or told.get("sha256") != job.sha256:
                    self.world.violate(STORED, f"{task.name} tells that {uri} is the image of {job.id}; it is not")

    def _told(self, task: TaskInstance) -> list[dict[str, Any]]:
        if self.plan.kind != "batch":
            return [task.result]
        return self._manifests.get(task.name, [])

    def _check_moderated(self, task: TaskInstance) -> None:
        """Each attempt may submit once, and all of them together as often again as ``moderation_retries`` says."""
        if task.task_id != "paint" or self.plan.place != "store" or self.plan.policies["reuse"] == "never":
            return
        most = self.plan.options["moderation_retries"] + max(1, task.try_number)
        for receipt in self._receipts(task):
            number = sum(job.id in receipt.moderated and run.run_id == task.run_id for job, run in receipt.duplicates)
            if number > most:
                self.world.violate(ONE_JOB, f"{task.name} has submitted {number} jobs that were moderated")

    def _check_cost(self, task: TaskInstance) -> None:
        if task.task_id != "paint" or self.plan.policies["reuse"] == "never" or self.plan.place == "nowhere":
            return
        if self.plan.options.get("wait_for_completion") is False:
            return
        if self.plan.kind == "batch" and task.name not in self._manifests:
            return
        told = self._told(task)
        jobs = [self.api.jobs[line["id"]] for line in told if line.get("id") in self.api.jobs]
        mine = [job for job in self.api.jobs.values() if _run(job) == task.run_id and job.fate == READY]
        least = sum(job.charge for job in jobs if _run(job) == task.run_id)
        # Images that were lost may be told of, and jobs that took the place of no image; an orphan is not known of.
        most = sum(job.charge for job in mine)
        # What becomes of a job that is not used is never asked: a batch counts it as paid.
        unused = {job.id for receipt in self._receipts(task) for job, _ in receipt.duplicates}
        unused |= {job_id for line in told for job_id in line.get("moderated", ())}
        most += sum(self.api.jobs[job_id].charge for job_id in unused if self.api.jobs[job_id].fate != READY)
        told_cost = task.result.get("cost") or 0.0
        if not least - 1e-6 <= told_cost <= most + 1e-6:
            paid = f"{least}" if least == most else f"{least} to {most}"
            self.world.violate(MONEY, f"{task.name} tells of {told_cost} credits; it paid {paid}")


def _name(error: BaseException | None) -> str:
    return type(error).__name__


def _run(job: Job) -> str:
    return job.attempt.process.name.partition(".")[0]
