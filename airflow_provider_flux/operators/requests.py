"""The requests of a batch: read from what an author wrote or a template rendered, and checked before money is spent."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.client.errors import FluxBadRequestError
from airflow_provider_flux.client.jobs import is_nothing, read_mapping
from airflow_provider_flux.client.models import check_model, output_format
from airflow_provider_flux.client.validation import prepare
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.images.recipe import fingerprint

if TYPE_CHECKING:
    from airflow_provider_flux.client.client import FluxClient

MANIFEST = "manifest.jsonl"
_TOLD = 20
"""Problems that a message lists at most."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch.

    :param index: Its place in the list, from 0.
    :param fields: The request's fields as they were given.
    :param file_name: Name of the image's file.
    """

    index: int
    model: str
    fields: dict[str, Any]
    file_name: str


def read_requests(
    requests: Any, model: str | None, parameters: Any, client: FluxClient, strict: bool = False
) -> list[Item]:
    """Return the items of a batch.

    :param requests: A list of prompts or of dicts, also as text; a dict may hold ``model``, ``parameters``,
        ``file_name`` and any field of the request.
    :param model: The model of those that name none.
    :param parameters: Fields of all requests; those of a request come before.
    :param client: The client of the API that is asked.
    :raises FluxBadRequestError: listing everything that is wrong.
    """
    shared = {} if is_nothing(parameters) else read_mapping(parameters)
    if shared is None:
        raise FluxBadRequestError("parameters must be a dict of request fields.")
    items, problems = [], []
    for index, request in enumerate(_read_list(requests)):
        try:
            items.append(_read_item(index, request, model, shared, client, strict))
        except FluxBadRequestError as error:
            problems.append(f"request {index}: {error.what}")
    names = Counter(item.file_name for item in items)
    problems += [f"{number} requests have the file name {name!r}" for name, number in names.items() if number > 1]
    if problems:
        more = f" ... and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise FluxBadRequestError(f"{len(problems)} problems: {' '.join(problems[:_TOLD])}{more}")
    return items


def _read_list(requests: Any) -> list[Any]:
    if isinstance(requests, str):
        # A template without native rendering turns a list into text.
        for read in (json.loads, ast.literal_eval):
            try:
                requests = read(requests.strip())
                break
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    if isinstance(requests, (str, Mapping)) or not hasattr(requests, "__iter__"):
        raise FluxBadRequestError(f"requests must be a list of prompts or dicts, not one {type(requests).__name__}.")
    if not (listed := list(requests)):
        raise FluxBadRequestError("requests is an empty list; skip the task instead.")
    return listed


def _read_item(
    index: int, request: Any, model: str | None, shared: Mapping[str, Any], client: FluxClient, strict: bool
) -> Item:
    if isinstance(request, Mapping):
        given = dict(request)
    elif isinstance(request, (str, int, float)) and not isinstance(request, bool):
        given = {"prompt": request}
    else:
        raise FluxBadRequestError(f"a request is a prompt or a dict, not a {type(request).__name__}.")
    own, file_name = given.pop("parameters", None), given.pop("file_name", None)
    model = given.pop("model", None) or model
    if own is not None and not isinstance(own, Mapping):
        raise FluxBadRequestError("its parameters must be a dict of request fields.")
    if own and (twice := sorted(own.keys() & given.keys())):
        raise FluxBadRequestError(f"given twice, in the request and in its parameters: {', '.join(twice)}.")
    fields = {**shared, **(own or {}), **given}
    if model is None:
        raise FluxBadRequestError("no model: give one to the operator or to the request.")
    # An image that lies in a store is read when its request's turn has come.
    named, problems = InputImages(check_model(model), client, None, unread=True).name(fields)
    body = prepare(model, named, client.endpoint.gateway, strict, problems)
    return Item(index, model, fields, _file_name(file_name, index, model, body))


def _file_name(given: Any, index: int, model: str, body: Mapping[str, Any]) -> str:
    extension = output_format(model, body)
    if is_nothing(given):
        return f"{index:04d}-{fingerprint(model, body)[:12]}.{extension}"
    name = str(given).strip()
    if not name.isprintable() or "/" in name or name in (".", "..", MANIFEST) or name.endswith(".json"):
        raise FluxBadRequestError(f"file_name {name!r} cannot name an image in the folder output_uri.")
    return name if "." in name else f"{name}.{extension}"
