"""The service as it is mostly written by hand: FastAPI, the OpenAI SDK's stream objects, StreamingResponse.

Run by uvicorn in an environment of its own: `uvicorn --app-dir tests/bench fastapi_twin:app`.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
import openai
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Ask(BaseModel):
    """The body of a question."""

    messages: list[dict[str, Any]]


# The SDK's own limit of 1,000 connections would end the measure of growth, and is no cost of the design.
_http = openai.DefaultAsyncHttpxClient(limits=httpx2.Limits(max_connections=None))
_client = openai.AsyncOpenAI(http_client=_http)


async def ask(question: Ask) -> StreamingResponse:
    """Answer as server-sent events."""
    stream = await _client.chat.completions.create(
        model="gpt-4o-mini",
        messages=cast("Any", question.messages),  # OpenAI checks them
        stream=True,
        stream_options={"include_usage": True},
    )

    async def events() -> AsyncIterator[str]:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield f"data: {json.dumps({'content': chunk.choices[0].delta.content})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


app = FastAPI()
app.post("/ask")(ask)
