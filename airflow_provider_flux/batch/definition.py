"""A batch as one task runs it: its items, and each item's store, receipt and submission."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_flux.client.catalogue.validation import build_request
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.receipts.stores import SidecarReceiptStore
from airflow_provider_flux.receipts.submission import Submission

if TYPE_CHECKING:
    from airflow_provider_flux.batch.options import BatchOptions
    from airflow_provider_flux.batch.requests import BatchItem
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.identity import TaskIdentity
    from airflow_provider_flux.storage.base import ImageStore


_LISTED_PER_ITEM = 10
"""Names in the folder for each item of the batch up to which listing them costs less than asking for each receipt."""


@dataclass(frozen=True)
class Batch:
    """The items of a batch, and what they have in common.

    :param items: The items, in the order of the requests.
    :param hook: The connection to the API.
    :param folder: Any place in the folder of the images.
    :param run: The task that runs the batch.
    :param options: What the author chose.
    """

    items: list[BatchItem]
    hook: FluxHook
    folder: ImageStore
    run: TaskIdentity
    options: BatchOptions
    _receipts: dict[int, SidecarReceiptStore] = field(default_factory=dict, init=False)

    def store(self, item: BatchItem) -> ImageStore:
        """Return the place of the item's image."""
        return self.folder.sibling(item.file_name)

    def receipts(self, item: BatchItem) -> SidecarReceiptStore:
        """Return the place of the item's receipt, which remembers what this attempt read or wrote last."""
        if item.index not in self._receipts:
            self._receipts[item.index] = SidecarReceiptStore(self.store(item))
        return self._receipts[item.index]

    def look_up_receipts(self) -> list[BatchItem]:
        """Return the items that may have a receipt; lists the folder, so that the others need not be looked for."""
        names = self.folder.names(limit=_LISTED_PER_ITEM * len(self.items))
        if names is None:
            return self.items
        found = []
        for item in self.items:
            if f"{item.file_name}.json" in names:
                found.append(item)
            else:
                self._receipts[item.index] = SidecarReceiptStore(self.store(item), is_missing=True)
        return found

    def submission(self, item: BatchItem) -> Submission:
        """Return the item's submission; blocks while input images are read.

        :raises FluxError: if an input image is invalid or cannot be read.
        """
        images = InputImages(item.model, self.hook.get_conn(), self.options.aws_conn_id)
        request = item.request
        if request is None:
            fields, problems = images.tokenize(item.fields)
            request = build_request(item.model, fields, self.hook.endpoint.gateway, self.options.strict, problems)
        return Submission(
            item.model,
            request,
            images,
            self.run,
            self.receipts(item),
            self.store(item),
            reuse=self.options.reuse,
            on_orphan=self.options.on_orphan,
            on_expired=self.options.on_expired,
            replace=self.options.replace,
            wait_for_capacity=False,
            quiet=True,
        )
