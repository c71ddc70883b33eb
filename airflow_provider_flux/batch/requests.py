"""The requests of a batch: read from what an author wrote or a template rendered, and checked before any is billed."""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.arguments import is_blank, is_unset, parse_parameters, parse_structure
from airflow_provider_flux.batch.variants import merge_fields, read_seeds, take_variants
from airflow_provider_flux.client.catalogue.models import check_model, output_format
from airflow_provider_flux.client.catalogue.validation import blank_content_problems, build_request, image_encodings
from airflow_provider_flux.exceptions import FluxBadRequestError
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.receipts.recipe import fingerprint

if TYPE_CHECKING:
    from airflow_provider_flux.client.client import FluxClient
    from airflow_provider_flux.storage.base import ImageStore

log = logging.getLogger(__name__)

_MAX_PROBLEMS_LISTED = 20
"""Maximum number of problems in one error message."""
_MAX_NAMES_LISTED = 3
"""Maximum number of file names in one warning."""
_FORMATS = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp"}
"""The image format of each file name extension."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One image of a batch.

    :param index: Its position among the images, from 0.
    :param request_index: The position of its request in the list, from 0; one request may ask for several images.
    :param model: Its model.
    :param fields: The fields of the request, as given.
    :param request: The validated request; None if it has input images, which are read when it is submitted.
    :param file_name: File name of the image.
    """

    index: int
    request_index: int
    model: str
    fields: dict[str, Any]
    request: dict[str, Any] | None
    file_name: str

    @property
    def has_input_images(self) -> bool:
        """Whether preparing the request loads input images into memory."""
        return self.request is None


@dataclass(frozen=True, slots=True)
class RequestProblem:
    """What is invalid in one request.

    :param request_index: The position of the request in the list, from 0.
    :param message: The sentence that says it; without prompts.
    :param faults: The faults that it lists, each as a sentence.
    """

    request_index: int
    message: str
    faults: tuple[str, ...]


def read_requests(
    requests: Any,
    model: str | None,
    parameters: Mapping[str, Any],
    client: FluxClient,
    folder: ImageStore,
    strict: bool = False,
) -> list[BatchItem]:
    """Return the items of a batch.

    An image without a file name is named after its recipe, so that it is found again wherever it appears in the list;
    if recipes are equal, the second name ends in ``-2``, and so on.

    :param requests: A list of prompts or of dicts, or its text; a dict may contain ``model``, ``parameters``,
        ``file_name``, ``seeds`` or ``variants``, and any field of the request. A string in the list is a prompt, even
        if it is JSON.
    :param model: Model of the requests that name none.
    :param parameters: Fields shared by all requests; a request's own fields take precedence.
    :param client: The client of the API.
    :param folder: Any place in the folder of the images.
    :param strict: Whether to reject models and parameters that the catalogue does not contain.
    :raises FluxBadRequestError: listing everything that is invalid.
    """
    items, problems = check_requests(requests, model, parameters, client, folder, strict)
    if problems:
        raise FluxBadRequestError(
            _problems_message([f"request {problem.request_index}: {problem.message}" for problem in problems]),
            faults=[f"request {problem.request_index}: {fault}" for problem in problems for fault in problem.faults],
        )
    _warn_about_extensions(items)
    return items


def check_requests(
    requests: Any,
    model: str | None,
    parameters: Mapping[str, Any],
    client: FluxClient,
    folder: ImageStore,
    strict: bool = False,
) -> tuple[list[BatchItem], list[RequestProblem]]:
    """Return the items of the valid requests, and what is invalid in the others; parameters as in `read_requests`.

    :raises FluxBadRequestError: if there is no list of requests.
    """
    reader = _RequestReader(model, parameters, client, strict)
    items: list[BatchItem] = []
    problems: list[RequestProblem] = []
    for index, request in enumerate(_read_list(requests)):
        try:
            read = reader.read(index, request)
        except FluxBadRequestError as error:
            problems.append(RequestProblem(index, error.message, tuple(error.faults)))
            continue
        unusable = (folder.sibling(item.file_name).name_problem() for item in read)
        if (problem := next(filter(None, unusable), None)) is not None:
            problems.append(RequestProblem(index, problem, (problem,)))
        else:
            items += read
    collisions = _name_collisions(items, folder)
    refused = {problem.request_index for problem in collisions}
    valid = [item for item in items if item.request_index not in refused]
    # Two images of one request have the same problem.
    found = dict.fromkeys([*problems, *collisions])
    return valid, sorted(found, key=lambda problem: problem.request_index)


@dataclass(frozen=True)
class _RequestReader:
    """Reads the requests of one batch, in the order of the list.

    :param count: How many images have been read so far.
    :param seen: How often each recipe has been named so far.
    """

    model: str | None
    parameters: Mapping[str, Any]
    client: FluxClient
    strict: bool
    count: Iterator[int] = field(default_factory=itertools.count)
    seen: Counter[str] = field(default_factory=Counter)

    def read(self, index: int, request: Any) -> list[BatchItem]:
        """Return the items of one request, one for each image.

        :raises FluxBadRequestError: listing everything that is invalid in it.
        """
        given = _read_request(request)
        own, file_name = parse_parameters(given.pop("parameters", None), "its parameters"), given.pop("file_name", None)
        own_model = given.pop("model", None)
        model = self.model if is_unset(own_model) else own_model
        if duplicates := sorted(own.keys() & given.keys()):
            raise FluxBadRequestError(f"set both in the request and in its parameters: {', '.join(duplicates)}.")
        if is_unset(model):
            raise FluxBadRequestError("no model is set, neither for the operator nor for the request.")
        model, gateway = check_model(model), self.client.endpoint.gateway
        fields = merge_fields(self.parameters, {**own, **given})
        several = take_variants(fields)
        # Input images in a store are read when the request is submitted.
        named, problems = InputImages(model, self.client, None, unread=True).tokenize(fields)
        body = build_request(model, named, gateway, self.strict, [*blank_content_problems(fields), *problems])
        has_images = any(image_encodings(model, name, gateway, body) is not None for name in body)
        items = []
        for number in read_seeds(several, model, body):
            seed = {} if number is None else {"seed": number}
            # The seed alone is new, and may be out of the model's range.
            sent = build_request(model, {**named, **seed}, gateway, self.strict) if seed else body
            name = _read_file_name(file_name, output_format(model, sent), number) or self._recipe_name(model, sent)
            request = None if has_images else sent
            items.append(BatchItem(next(self.count), index, model, {**fields, **seed}, request, name))
        return items

    def _recipe_name(self, model: str, body: Mapping[str, Any]) -> str:
        stem = fingerprint(model, body)[:12]
        self.seen[stem] += 1
        number = f"-{self.seen[stem]}" if self.seen[stem] > 1 else ""
        return f"{stem}{number}.{output_format(model, body)}"


def _read_list(requests: Any) -> list[Any]:
    # A template without native rendering turns a list into text.
    listed = parse_structure(requests) if isinstance(requests, str) else requests
    # A set has no order, but the manifest's rows are in the order of the requests.
    if isinstance(listed, (str, bytes, bytearray, Mapping, Set)) or not hasattr(listed, "__iter__"):
        raise FluxBadRequestError(f"requests must be a list of prompts or dicts, not {type(listed).__name__}.")
    if not (listed := list(listed)):
        raise FluxBadRequestError("requests is an empty list; skip the task instead.")
    return listed


def _read_request(request: Any) -> dict[str, Any]:
    if isinstance(request, Mapping):
        return dict(request)
    if isinstance(request, float) and not math.isfinite(request):
        raise FluxBadRequestError(f"a request must be a prompt or a dict, not the number {request}.")
    if is_blank(request):
        raise FluxBadRequestError(f"a request must be a prompt or a dict, but it is empty ({request!r}).")
    # Native rendering turns a prompt like "1984" into a number.
    if isinstance(request, bool) or not isinstance(request, (str, int, float)):
        raise FluxBadRequestError(f"a request must be a prompt or a dict, not {type(request).__name__}.")
    return {"prompt": request}


def _read_file_name(given: Any, extension: str, seed: int | None) -> str | None:
    """Return the file name of an image; None if its request names none.

    :param seed: Distinguishes the images of one request: ``hero.png`` becomes ``hero-7.png``; None: it has one image.
    """
    if is_unset(given):
        return None
    name = str(given).strip()
    # Receipts and manifests have these extensions.
    is_reserved = name.lower().endswith((".json", ".jsonl"))
    if not name.isprintable() or {"/", "\\"} & set(name) or name in (".", "..") or is_reserved:
        raise FluxBadRequestError(f"file_name {name!r} is not a valid name for an image in the folder output_uri.")
    stem, extension = name.rsplit(".", 1) if _format_of(name) else (name, extension)
    return f"{stem}.{extension}" if seed is None else f"{stem}-{seed}.{extension}"


def _format_of(name: str) -> str | None:
    """Return the image format of a file name's extension; None if it is not one of an image, as in "sku-12.5"."""
    return _FORMATS.get(name.rpartition(".")[2].lower()) if "." in name[1:] else None


def _name_collisions(items: list[BatchItem], folder: ImageStore) -> list[RequestProblem]:
    """Return a problem for each name that would be the same file as another: of two images, one would be lost."""
    files: dict[str, list[BatchItem]] = {}
    for item in items:
        files.setdefault(folder.file_of(item.file_name), []).append(item)
    problems = []
    for same in files.values():
        if len(same) > 1:
            names = ", ".join(repr(name) for name in dict.fromkeys(item.file_name for item in same))
            message = f"{len(same)} requests have the file name {names}."
            problems += [RequestProblem(item.request_index, message, (message,)) for item in same]
    return problems


def _problems_message(problems: list[str]) -> str:
    number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    more = len(problems) - _MAX_PROBLEMS_LISTED
    listed = " ".join(problems[:_MAX_PROBLEMS_LISTED])
    return f"{number}: {listed}{f' ... and {more} more' if more > 0 else ''}"


def _warn_about_extensions(items: list[BatchItem]) -> None:
    wrong = []
    for item in items:
        format_, named = output_format(item.model, item.request or item.fields), _format_of(item.file_name)
        if named != format_ and named is not None:
            wrong.append(f"{item.file_name!r} (request {item.request_index}) will be {format_}")
    if wrong:
        more = len(wrong) - _MAX_NAMES_LISTED
        log.warning(
            "%s a file_name whose extension does not match the output_format: %s%s.",
            "1 request has" if len(wrong) == 1 else f"{len(wrong)} requests have",
            ", ".join(wrong[:_MAX_NAMES_LISTED]),
            f" and {more} more" if more > 0 else "",
        )
