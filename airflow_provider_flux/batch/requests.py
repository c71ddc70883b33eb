"""The requests of a batch: read from what an author wrote or a template rendered, and checked before money is spent."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.arguments import is_blank, is_unset, parse_parameters, parse_structure
from airflow_provider_flux.client.catalogue.models import check_model, output_format
from airflow_provider_flux.client.catalogue.validation import blank_content_problems, build_request, image_encodings
from airflow_provider_flux.exceptions import FluxBadRequestError
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.receipts.recipe import fingerprint

if TYPE_CHECKING:
    from airflow_provider_flux.client.client import FluxClient
    from airflow_provider_flux.identity import TaskIdentity
    from airflow_provider_flux.storage.base import ImageStore

log = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"
"""Name of the copy of the newest manifest."""
_TOLD = 20
"""Problems that a message lists at most."""
_SHOWN = 3
"""Names that a warning lists at most."""
_FORMATS = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp"}
"""What an ending says of the format."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch.

    :param index: Its place in the list, from 0.
    :param fields: The request's fields as they were given.
    :param request: The request as it is sent; None: it has input images, which are read when its turn has come.
    :param file_name: Name of the image's file.
    """

    index: int
    model: str
    fields: dict[str, Any]
    request: dict[str, Any] | None
    file_name: str


def own_manifest(run: TaskIdentity) -> str:
    """Return the file name of a run's own manifest, which no other run overwrites."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", run.run_id or "")[:100]
    unique = hashlib.sha256(json.dumps(asdict(run)).encode()).hexdigest()[:12]
    return f"manifest-{readable}-{unique}.jsonl"


def read_requests(
    requests: Any,
    model: str | None,
    parameters: Mapping[str, Any],
    client: FluxClient,
    folder: ImageStore,
    strict: bool = False,
) -> list[Item]:
    """Return the items of a batch.

    An image that is given no file name has that of its recipe, so that it is found again wherever it stands in the
    list; of equal recipes, the second has the ending ``-2``, and so on.

    :param requests: A list of prompts or of dicts, all of it also as text; a dict may hold ``model``,
        ``parameters``, ``file_name`` and any field of the request. A string in the list is a prompt, whatever it says.
    :param model: The model of those that name none.
    :param parameters: Fields of all requests; those of a request come before.
    :param client: The client of the API that is asked.
    :param folder: Any place in the folder of the images.
    :raises FluxBadRequestError: listing everything that is wrong.
    """
    items: list[Item] = []
    problems: list[str] = []
    faults: list[str] = []
    seen: Counter[str] = Counter()
    for index, request in enumerate(_read_list(requests)):
        try:
            item = _read_item(index, request, model, parameters, client, strict, seen)
        except FluxBadRequestError as error:
            problems.append(f"request {index}: {error.message}")
            faults += [f"request {index}: {fault}" for fault in error.faults]
            continue
        items.append(item)
        if (said := folder.sibling(item.file_name).name_problem()) is not None:
            problems.append(f"request {index}: {said}")
            faults.append(problems[-1])
    collisions = _collisions(items, folder)
    problems, faults = problems + collisions, faults + collisions
    if problems:
        more = f" ... and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise FluxBadRequestError(f"{len(problems)} problems: {' '.join(problems[:_TOLD])}{more}", faults=faults)
    _warn_of_endings(items)
    return items


def _read_list(requests: Any) -> list[Any]:
    # A template without native rendering turns a list into text.
    listed = parse_structure(requests) if isinstance(requests, str) else requests
    # A set has no order, and the manifest's lines, which it is to give, have.
    if isinstance(listed, (str, bytes, bytearray, Mapping, Set)) or not hasattr(listed, "__iter__"):
        raise FluxBadRequestError(f"requests must be a list of prompts or dicts, not one {type(listed).__name__}.")
    if not (listed := list(listed)):
        raise FluxBadRequestError("requests is an empty list; skip the task instead.")
    return listed


def _read_item(
    index: int,
    request: Any,
    model: str | None,
    shared: Mapping[str, Any],
    client: FluxClient,
    strict: bool,
    seen: Counter[str],
) -> Item:
    given = _read_request(request)
    own, file_name = parse_parameters(given.pop("parameters", None), "its parameters"), given.pop("file_name", None)
    if not is_unset(own_model := given.pop("model", None)):
        model = own_model
    if twice := sorted(own.keys() & given.keys()):
        raise FluxBadRequestError(f"given twice, in the request and in its parameters: {', '.join(twice)}.")
    fields = {**shared, **own, **given}
    if is_unset(model):
        raise FluxBadRequestError("no model: give one to the operator or to the request.")
    model, gateway = check_model(model), client.endpoint.gateway
    # A stored input image is read only when its request is submitted.
    named, problems = InputImages(model, client, None, unread=True).tokenize(fields)
    body = build_request(model, named, gateway, strict, [*blank_content_problems(fields), *problems])
    has_images = any(image_encodings(model, name, gateway) is not None for name in body)
    name = _file_name(file_name, output_format(model, body)) or _own_name(model, body, seen)
    return Item(index, model, fields, None if has_images else body, name)


def _read_request(request: Any) -> dict[str, Any]:
    if isinstance(request, Mapping):
        return dict(request)
    if isinstance(request, float) and not math.isfinite(request):
        raise FluxBadRequestError(f"a request is a prompt or a dict, not the number {request}.")
    if is_blank(request):
        raise FluxBadRequestError(f"a request is a prompt or a dict, not nothing ({request!r}).")
    # Native rendering turns a prompt like "1984" into a number.
    if isinstance(request, bool) or not isinstance(request, (str, int, float)):
        raise FluxBadRequestError(f"a request is a prompt or a dict, not a {type(request).__name__}.")
    return {"prompt": request}


def _file_name(given: Any, extension: str) -> str | None:
    if is_unset(given):
        return None
    name = str(given).strip()
    # What ends so is a receipt, or a manifest.
    is_note = name.lower().endswith((".json", ".jsonl"))
    if not name.isprintable() or {"/", "\\"} & set(name) or name in (".", "..") or is_note:
        raise FluxBadRequestError(f"file_name {name!r} cannot name an image in the folder output_uri.")
    return name if _format_of(name) else f"{name}.{extension}"


def _format_of(name: str) -> str | None:
    """Return the image format that a file name's ending stands for; of any other ending, such as "sku-12.5", None."""
    return _FORMATS.get(name.rpartition(".")[2].lower()) if "." in name[1:] else None


def _collisions(items: list[Item], folder: ImageStore) -> list[str]:
    """Say which names would be one file: of two images in one place, one would be lost."""
    files: dict[str, list[str]] = {}
    for item in items:
        files.setdefault(folder.file_of(item.file_name), []).append(item.file_name)
    return [
        f"{len(names)} requests have the file name {', '.join(repr(name) for name in dict.fromkeys(names))}."
        for names in files.values()
        if len(names) > 1
    ]


def _warn_of_endings(items: list[Item]) -> None:
    wrong = []
    for item in items:
        format_, named = output_format(item.model, item.request or item.fields), _format_of(item.file_name)
        if named != format_ and named is not None:
            wrong.append(f"{item.file_name!r} (request {item.index}) will be {format_}")
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        log.warning(
            "The file_name of %d requests does not fit their output_format: %s%s.",
            len(wrong),
            ", ".join(wrong[:_SHOWN]),
            more,
        )


def _own_name(model: str, body: Mapping[str, Any], seen: Counter[str]) -> str:
    stem = fingerprint(model, body)[:12]
    seen[stem] += 1
    again = f"-{seen[stem]}" if seen[stem] > 1 else ""
    return f"{stem}{again}.{output_format(model, body)}"
