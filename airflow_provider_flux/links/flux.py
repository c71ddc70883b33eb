"""FluxImageLink: from a task in the Airflow UI to the image it stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


class FluxImageLink(BaseOperatorLink):
    """Open the stored image: in the S3 console, or at its own address. Empty while there is none."""

    name = "Image"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the link, read from what the task returned."""
        from airflow.providers.common.compat.sdk import XCom

        returned: Any = XCom.get_value(ti_key=ti_key, key="return_value")
        return link_to(returned.get("uri")) if isinstance(returned, dict) else ""


def link_to(uri: str | None) -> str:
    """Return the web address that shows the object at ``uri``; "" if there is none."""
    if not uri:
        return ""
    scheme, _, rest = uri.partition("://")
    if scheme == "s3":
        bucket, _, key = rest.rpartition("@")[2].partition("/")
        return f"https://console.aws.amazon.com/s3/object/{quote(bucket)}?prefix={quote(key, safe='')}"
    return uri if scheme in ("http", "https") else ""
