"""One request to a chat server: it ends in time, follows nobody, and lets nothing of the key out."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cache

import httpx

from .secrets import Secret

MOST_BYTES = 8 << 20  # of a reply; an answer of 256 tokens has a few thousand

_PASSING = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, TimeoutError)


class Unreadable(ValueError):
    """A reply that is no chat completion; the text says what it is instead."""


@dataclass(frozen=True)
class Reply:
    """What came back: a status with a text, or (status 0) the name of what went wrong."""

    status: int = 0
    text: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    problem: str = ""
    hopeless: bool = False  # the request itself is wrong: no use in asking again


def post(url: str, body: dict, key: Secret, timeout: float) -> Reply:
    """Send one JSON body; `timeout` seconds for everything, also where the server sends a byte at a time.

    The request runs in a thread with a loop of its own: there it can be cancelled at any moment (also from a notebook,
    whose thread has a loop already), and no frame that holds the header is in the traceback of an interrupt here.
    """
    found: list[Reply] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(_post(url, body, key, timeout))), daemon=True)
    thread.start()
    thread.join()
    return found[0] if found else Reply(problem="no reply")


async def _post(url: str, body: dict, key: Secret, timeout: float) -> Reply:
    try:
        async with asyncio.timeout(timeout):
            auth = _Bearer(key) if key else None
            async with httpx.AsyncClient(timeout=timeout, follow_redirects=False, verify=_context()) as client:
                async with client.stream("POST", url, json=body, auth=auth) as response:
                    return await _received(response)
    except _PASSING as error:
        return Reply(problem=type(error).__name__)
    except Exception as error:  # its text may hold the URL or the header: the name of its kind has to do
        return Reply(problem=type(error).__name__, hopeless=True)


@cache
def _context() -> ssl.SSLContext:
    """The certificates that are trusted: read once, not for every question."""
    return httpx.create_ssl_context()


async def _received(response: httpx.Response) -> Reply:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            return Reply(problem="an answer without end", hopeless=True)
        parts.append(part)
    try:
        text = b"".join(parts).decode(response.encoding or "utf-8", "replace")
    except LookupError:  # a charset that nobody knows
        text = b"".join(parts).decode("utf-8", "replace")
    return Reply(response.status_code, text, {"retry-after": response.headers.get("retry-after", "")})


class _Bearer(httpx.Auth):
    """Sets the header at the last moment."""

    def __init__(self, key: Secret):
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        yield request


def chat_content(text: str) -> tuple[str, dict[str, int]]:
    """Answer and token counts of a chat completion. Raises Unreadable for anything that is none."""
    try:
        raw = json.loads(text)
        content = raw["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Unreadable("something that is no chat completion") from None
    if content is not None and not isinstance(content, str):
        raise Unreadable("something other than a text")
    if not content or not content.strip():
        raise Unreadable("an empty text (a model that reasons first needs a larger max_tokens)")
    return content.encode("utf-8", "replace").decode("utf-8"), usage_numbers(raw.get("usage"))


def usage_numbers(usage: object) -> dict[str, int]:
    """The numbers of a reply's `usage`, nothing else of it."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    given = usage if isinstance(usage, dict) else {}
    return {n: given[n] for n in names if type(given.get(n)) is int and 0 <= given[n] < 10**9}
