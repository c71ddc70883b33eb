"""The receipts below URIs."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence

from airflow_provider_flux.exceptions import FluxReceiptError
from airflow_provider_flux.receipts.receipt import FORMAT, MAX_BYTES, Receipt, read_receipt
from airflow_provider_flux.storage.listing import read_json_files


def read_receipts(
    uris: Sequence[str], aws_conn_id: str | None, since: datetime.datetime | None, unreadable: list[str]
) -> Iterator[Receipt]:
    """Yield the receipts in these folders; other JSON files are skipped.

    :param since: Receipts that were written before are skipped, where the store tells.
    :param unreadable: Receives the URI of each file that cannot be read, and of each receipt that is damaged.
    :raises FluxStoreConfigurationError: if a folder does not exist.
    :raises FluxStoreError: if a folder cannot be listed.
    """
    for uri in uris:
        for file in read_json_files(uri, aws_conn_id, MAX_BYTES, since):
            if file.data is None:
                unreadable.append(file.uri)
                continue
            try:
                yield read_receipt(file.data, file.uri)
            except FluxReceiptError:
                if FORMAT.encode() in file.data:
                    unreadable.append(file.uri)
