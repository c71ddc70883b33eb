"""The documentation's list of errors, from the classes in ``exceptions.py``."""

from __future__ import annotations

import inspect
import re

from airflow_provider_flux import exceptions
from airflow_provider_flux.exceptions import FluxError

POLICIES = {
    "FluxUncertainSubmitError": "as `on_orphan` says",
    "FluxJobNotFoundError": "as `on_expired` says",
    "FluxImageExpiredError": "as `on_expired` says",
    "FluxBudgetReachedError": "if credits are not spent but reserved for other jobs, which may cost less or fail",
    "FluxBatchError": "if a retry can bring any of the missing images",
}
"""Whether a retry happens, where the task's arguments decide and not the class."""

BILLED = {
    "FluxTimeoutError": "if the job finishes, which it may still do",
    "FluxBatchError": "the message says how much",
}
"""What was billed, where the class's own sentence is not the usual one."""

ADVICE = {
    "FluxRateLimitError": "Nothing. If it happens often, limit the tasks with a pool.",
    "FluxServiceError": "Nothing, unless it lasts: then see the status page of the API.",
    "FluxUncertainSubmitError": 'Look at the account\'s usage, or set `on_orphan="fail"` to decide each time.',
    "FluxOrphanError": "Look at the account's usage; then delete the receipt, and clear the task to submit again.",
    "FluxJobFailedError": "Nothing. If every attempt fails, change the request.",
    "FluxJobNotFoundError": "Check that the connection is that of the account that submitted the job.",
    "FluxTimeoutError": "Nothing: the retry resumes the job. If it happens often, raise `timeout`.",
    "FluxBadImageError": "Nothing: the retry downloads the image again.",
    "FluxImageExpiredError": 'Set `on_expired="resubmit"` to pay for the image again.',
    "FluxStoreError": "Clear the task soon after the store works again: the URL expires in about ten minutes.",
    "FluxBatchError": "See the manifest for each image; a retry submits only what is missing.",
}
"""What to do after errors whose message has no hint of its own."""


def classes() -> list[type[FluxError]]:
    """Return the error classes in the order in which they are defined."""
    return [
        value
        for value in vars(exceptions).values()
        if inspect.isclass(value) and issubclass(value, FluxError) and value is not FluxError
    ]


def sections() -> str:
    """Return the list: one section for each class."""
    return "\n".join(_section(cls) for cls in classes())


def _section(cls: type[FluxError]) -> str:
    retried = POLICIES.get(cls.__name__, "yes" if cls.retryable else "no")
    return f"""### {cls.__name__}

{_summary(cls)}

- **Billed?** {_billed(cls)}
- **Retried?** {_sentence(retried)}
- **What to do:** {cls.hint or _advice(cls)}
"""


def _advice(cls: type[FluxError]) -> str:
    if cls.__name__ not in ADVICE:
        raise LookupError(f"{cls.__name__} has no hint: give it one, or say what to do in ADVICE of {__file__}.")
    return ADVICE[cls.__name__]


def _summary(cls: type[FluxError]) -> str:
    text = " ".join((inspect.getdoc(cls) or "").split())
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _billed(cls: type[FluxError]) -> str:
    if cls.__name__ in BILLED:
        return _sentence(BILLED[cls.__name__])
    before, after = cls.billing_note(None), cls.billing_note("ID")
    if (before, after) == (FluxError.billing_note(None), FluxError.billing_note("ID")):
        return "No. If the message names a job, that job is billed if it finishes."
    if before == after:
        return before
    # A class that is raised for accepted jobs only has no sentence without one.
    return after if "None" in before else f"{before} With a job: {after}"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
