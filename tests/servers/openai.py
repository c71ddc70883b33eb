"""A double of an OpenAI-compatible server: it answers chat completions as it is asked to, and refuses invalid requests.

The shape of requests and answers is that of the library ``openai``; what is checked beyond that is what
platform.openai.com/docs/api-reference/chat documents.
"""

from __future__ import annotations

import base64
import io
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

KEY = "sk-a-secret-key"
MODEL = "gpt-5-mini"

Answer = str | Mapping[str, Any]
"""A text, or the arguments of the function that the model has to call."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"

    @field_validator("url")
    @classmethod
    def _is_an_image(cls, url: str) -> str:
        _decode(url)
        return url


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


class ChatMessage(Strict):
    role: Literal["system", "developer", "user"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]

    @property
    def parts(self) -> list[TextPart | ImagePart]:
        return [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> list[bytes]:
        return [_decode(part.image_url.url) for part in self.parts if isinstance(part, ImagePart)]


class Function(Strict):
    name: str = Field(pattern=r"^[\w-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any]
    strict: bool = False


class Tool(Strict):
    type: Literal["function"]
    function: Function


class ChatRequest(Strict):
    model: Literal["gpt-5-mini"]
    messages: list[ChatMessage] = Field(min_length=1)
    stream: Literal[False] = False
    tools: list[Tool] = []
    tool_choice: Literal["auto", "required"] | dict[str, Any] = "auto"

    @property
    def text(self) -> str:
        """All that the model reads."""
        return "\n".join(message.text for message in self.messages)

    @property
    def images(self) -> list[bytes]:
        """All that the model sees."""
        return [image for message in self.messages for image in message.images]


class OpenAIServer:
    """``app`` is the server; ``requests`` are those it has accepted; ``answer`` is asked for each answer."""

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []
        self.answer: Callable[[ChatRequest], Answer] = lambda request: "A tea shop"
        self.app = FastAPI()
        self.app.add_exception_handler(HTTPException, _as_openai)
        self.app.post("/v1/chat/completions")(self._complete)

    def connection(self, url: str) -> dict[str, Any]:
        """The Airflow connection of type Pydantic AI."""
        extra = {"model": f"openai-chat:{MODEL}"}
        return {"conn_type": "pydanticai", "host": f"{url}/v1", "password": KEY, "extra": extra}

    async def _complete(self, request: Request, authorization: Annotated[str, Header()] = "") -> dict[str, Any]:
        if authorization != f"Bearer {KEY}":
            raise HTTPException(401, "Incorrect API key provided.")
        try:
            asked = ChatRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(400, f"Invalid request: {error}") from None
        self.requests.append(asked)
        return _completion(self.answer(asked), asked)


def _decode(url: str) -> bytes:
    """Return the file in a data URL; the server cannot reach this machine, so that no other address is of use."""
    kind, comma, data = url.partition(";base64,")
    if not comma or kind not in ("data:image/jpeg", "data:image/png", "data:image/webp"):
        raise ValueError("an image must be a data URL of a JPEG, PNG or WebP file")
    file = base64.b64decode(data, validate=True)
    with Image.open(io.BytesIO(file)) as image:
        if f"data:image/{image.format}".lower() != kind:
            raise ValueError(f"the image is {image.format}, not {kind}")
        image.load()
    return file


def _completion(answer: Answer, asked: ChatRequest) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    if isinstance(answer, str):
        message["content"] = answer
    else:
        (tool,) = asked.tools
        call = {"name": tool.function.name, "arguments": json.dumps(answer)}
        message["tool_calls"] = [{"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": call}]
    reason = "stop" if isinstance(answer, str) else "tool_calls"
    return {
        "id": f"chatcmpl-{secrets.token_hex(8)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


async def _as_openai(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    body = {"message": error.detail, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": body}, error.status_code)
