"""A double of a Slack incoming webhook: refuses what Slack refuses, and keeps the messages that it accepts.

Slack documents the blocks and their limits at docs.slack.dev/reference/block-kit/blocks, and the errors of webhooks at
docs.slack.dev/messaging/sending-messages-using-incoming-webhooks.
"""

from __future__ import annotations

import io
import urllib.request
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

TOKEN = "T0001/B0001/a-secret-token"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlainText(Strict):
    type: Literal["plain_text"]
    text: str = Field(min_length=1, max_length=150)


class Text(Strict):
    type: Literal["plain_text", "mrkdwn"]
    text: str = Field(min_length=1, max_length=3000)


class Header(Strict):
    type: Literal["header"]
    text: PlainText


class Section(Strict):
    type: Literal["section"]
    text: Text


class ImageBlock(Strict):
    type: Literal["image"]
    image_url: str = Field(pattern="^https?://", max_length=3000)
    alt_text: str = Field(min_length=1, max_length=2000)


class Message(Strict):
    text: str = Field("", max_length=40_000)
    blocks: list[Annotated[Header | Section | ImageBlock, Field(discriminator="type")]] = Field([], max_length=50)


class SlackWebhook:
    """``app`` is the server; ``messages`` are those it has accepted, ``images`` the files that their blocks show."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.images: list[bytes] = []
        self.app = FastAPI()
        self.app.add_exception_handler(HTTPException, _as_text)
        self.app.post("/services/{token:path}", response_class=PlainTextResponse)(self._post)

    def connection(self, url: str) -> dict[str, Any]:
        """The Airflow connection of type Slack Incoming Webhook."""
        return {"conn_type": "slackwebhook", "host": f"{url}/services", "password": TOKEN}

    async def _post(self, token: str, request: Request) -> str:
        if token != TOKEN:
            raise HTTPException(403, "invalid_token")
        if request.headers["content-type"].partition(";")[0] != "application/json":
            raise HTTPException(400, "invalid_payload")
        try:
            message = Message.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(400, "invalid_blocks" if "blocks" in str(error) else "invalid_payload") from None
        if not (message.text or message.blocks):
            raise HTTPException(400, "no_text")
        self.images += [_download(block.image_url) for block in message.blocks if isinstance(block, ImageBlock)]
        self.messages.append(message)
        return "ok"


def _download(url: str) -> bytes:
    """Slack loads an image without any login, before it accepts the message."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as response:
            file: bytes = response.read()
        Image.open(io.BytesIO(file)).verify()
    except Exception:
        raise HTTPException(400, "invalid_blocks") from None
    return file


async def _as_text(request: Request, error: Exception) -> PlainTextResponse:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code)
