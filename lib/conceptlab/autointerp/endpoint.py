"""Any OpenAI-compatible chat endpoint, by URL and key from the environment; answers are kept on disk.

The key goes into the request's header and nowhere else: it is in no message, transcript, representation or error, and
an answer that repeats it in whatever encoding is redacted before it is shown or stored (`secrets.Redactor`).
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..core import ConceptLabError, cache_dir
from .examples import Example, UnitExamples
from .explain import Label, OutputExplainer, text_label
from .prompts import explain_messages, first_line, marked, rate_messages, read_ratings
from .request import Reply, Unreadable, chat_content, post
from .secrets import Redactor, Secret
from .transcripts import Transcripts

URL, KEY, MODEL = "CONCEPTLAB_LLM_URL", "CONCEPTLAB_LLM_KEY", "CONCEPTLAB_LLM_MODEL"


@dataclass(frozen=True)
class EndpointConfig:
    """Where to ask, and how patiently. Raises ConceptLabError for numbers that make no sense."""

    url: str = field(
        repr=False
    )  # up to and including the version, e.g. "http://localhost:8000/v1"; users write keys in
    model: str  # name of the model there
    timeout: float = 60.0  # seconds for one answer, from the connection to the last byte
    retries: int = 5  # further attempts after 429, a server's error, a lost connection or a timeout
    backoff: float = 1.0  # seconds before the first of them; doubled each time, unless the server says how long
    longest_wait: float = 60.0  # seconds, whatever the server says
    max_tokens: int = 256  # of an answer
    temperature: float = 0.0

    def __post_init__(self):
        least = {"timeout": 1e-3, "retries": 0, "backoff": 0, "longest_wait": 0, "max_tokens": 1, "temperature": 0}
        for name, low in least.items():
            value = getattr(self, name)
            whole = name in ("retries", "max_tokens")
            right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not (right and math.isfinite(value) and value >= low):
                kind = "a whole number" if whole else "a number"
                raise ConceptLabError(f"The endpoint's {name} must be {kind} of at least {low:g}; got {value!r}.")


class Endpoint:
    """A chat model behind a URL. `ask(messages)` returns its answer, from the cache where the question is known."""

    def __init__(
        self,
        cfg: EndpointConfig,
        key: str = "",
        folder: Path | None = None,
        progress: bool = True,
        wait: Callable[[float], None] = time.sleep,
    ):
        self.cfg, self._key, self._wait = cfg, Secret(key.strip()), wait
        self._redact = Redactor([self._key, *_secrets_of(cfg.url)])
        self.transcripts = Transcripts(folder or cache_dir() / "transcripts", self._redact)
        self.calls = self.cached = self.tokens_in = self.tokens_out = 0
        self._bar = tqdm(bar_format="{desc}", disable=not progress, file=sys.stderr)

    @classmethod
    def from_environment(cls, **changes) -> Endpoint:
        """The endpoint that CONCEPTLAB_LLM_URL, _KEY and _MODEL name; raises ConceptLabError when one is not set.

        The key may be empty (a server of your own), the other two may not.
        """
        url, model = (os.environ.get(name, "").strip() for name in (URL, MODEL))
        if not (url and model):
            raise ConceptLabError(f"No endpoint is configured: set {URL}, {MODEL} and, where it needs one, {KEY}.")
        return cls(EndpointConfig(url, model), os.environ.get(KEY, ""), **changes)

    def __repr__(self) -> str:
        return f"Endpoint({self.cfg.model} at {self.host}: {self.calls} calls, {self.cached} from the cache)"

    @property
    def host(self) -> str:
        """The server's name: of a URL, only this is ever shown (users write keys into URLs)."""
        try:
            return httpx.URL(self.cfg.url).host or "without a host"
        except httpx.InvalidURL:
            return "without a host"

    def settings(self) -> dict:
        """What a table's provenance may say of it: no key, and of the URL the host."""
        return asdict(self.cfg) | {"url": self.host}

    def ask(
        self,
        messages: Sequence[dict[str, str]],
        max_tokens: int | None = None,
        check: Callable[[str], object] | None = None,
    ) -> str:
        """The answer to a chat. Raises ConceptLabError when the server refuses, or fails after all retries.

        `check` raises ConceptLabError for an answer that is of no use; such an answer is not kept.
        """
        body = {
            "model": self.cfg.model, "messages": list(messages), "temperature": self.cfg.temperature,
            "max_tokens": max_tokens or self.cfg.max_tokens,
        }  # fmt: skip
        place = _without_secrets(self.cfg.url)  # another server, another model; another key, the same
        answer = self.transcripts.find(place, body, check)
        if answer is not None:
            self.cached += 1
        else:
            answer, usage = self._read(self._post(body))
            self.calls += 1
            self.tokens_in += usage.get("prompt_tokens", 0)
            self.tokens_out += usage.get("completion_tokens", 0)
            if check:
                check(answer)
            self.transcripts.keep(place, body, answer, usage)
        self._bar.set_description_str(
            f"{self.cfg.model}: {self.calls} calls, {self.cached} from the cache, "
            f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out"
        )
        return answer

    def _post(self, body: dict) -> Reply:
        """One answer of the server, after as many attempts as it takes."""
        problem = ""
        for attempt in range(self.cfg.retries + 1):
            pause = min(self.cfg.backoff * 2**attempt, self.cfg.longest_wait)
            reply = post(self.cfg.url.rstrip("/") + "/chat/completions", body, self._key, self.cfg.timeout)
            if reply.status == 200:
                return reply
            if reply.hopeless:
                raise ConceptLabError(
                    f"The endpoint {self.host} cannot be asked ({reply.problem}); check {URL} and {KEY}."
                )
            problem = reply.problem or f"status {reply.status}"
            if reply.status and reply.status != 429 and reply.status < 500:
                self._refuse(reply)
            if attempt < self.cfg.retries:
                self._wait(_pause(reply.headers.get("retry-after", ""), pause, self.cfg.longest_wait))
        raise ConceptLabError(
            f"The endpoint {self.host} did not answer after {self.cfg.retries + 1} attempts ({problem}); "
            "answers so far are kept, call again later."
        )

    def _refuse(self, reply: Reply) -> None:
        if reply.status in (401, 403):
            raise ConceptLabError(f"The endpoint {self.host} refused the key; check {KEY}.")
        if 300 <= reply.status < 400:
            raise ConceptLabError(
                f"The endpoint {self.host} sends visitors elsewhere (status {reply.status}), where the key does not "
                f"follow; set {URL} to the address that answers."
            )
        said = " ".join(self._redact(reply.text).split())  # redacted first: a cut would hide a part of the key
        raise ConceptLabError(
            f"The endpoint {self.host} refused the request (status {reply.status}: {said[:120]}); "
            f"check {URL} and {MODEL}."
        )

    def _read(self, reply: Reply) -> tuple[str, dict[str, int]]:
        try:
            content, usage = chat_content(reply.text)
        except Unreadable as error:
            problem = str(error)
        else:
            return self._redact(content), usage
        raise ConceptLabError(f"The endpoint {self.host} answered with {problem}; check {URL} and {MODEL}.")


def _secrets_of(url: str) -> list[Secret]:
    """What in a URL may be a secret: the password and the values of its query."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return []
    return [Secret(text) for text in (parsed.password, *parsed.params.values()) if len(text) > 3]


def _without_secrets(url: str) -> str:
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")
    except httpx.InvalidURL:
        return ""


def _pause(asked: str, otherwise: float, longest: float) -> float:
    """Seconds that Retry-After asks for, as a number or a date; `otherwise` where it asks for nothing sensible."""
    try:
        seconds = float(asked)
    except ValueError:
        try:
            until = parsedate_to_datetime(asked)
        except ValueError:
            return otherwise
        seconds = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(seconds, longest) if math.isfinite(seconds) and seconds >= 0 else otherwise


class EndpointJudge:
    """A judge at an endpoint: it rates `batch_size` contexts per call from 0 to 100."""

    name = "endpoint"

    def __init__(self, endpoint: Endpoint, batch_size: int = 10):
        self.endpoint, self.batch_size = endpoint, batch_size

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """Ratings. Raises ConceptLabError when an answer holds no list of as many numbers from 0 to 100."""
        found: list[float] = []
        for start in range(0, len(contexts), self.batch_size):
            texts = [marked(context) for context in contexts[start : start + self.batch_size]]
            messages = rate_messages(label.text, texts)
            answer = self.endpoint.ask(messages, check=partial(read_ratings, n=len(texts)))
            found += read_ratings(answer, len(texts))
        return torch.tensor(found)


class EndpointExplainer:
    """An explainer at an endpoint: it is shown the top contexts and, where there is a writer, the promoted tokens."""

    name = "endpoint"

    def __init__(self, endpoint: Endpoint, writer: OutputExplainer | None = None, n_contexts: int = 10):
        self.endpoint, self.writer, self.n_contexts = endpoint, writer, n_contexts

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit."""
        promotes = self.writer.explain(examples).promotes if self.writer else {}
        messages = explain_messages([marked(e) for e in examples.top[: self.n_contexts]], list(promotes))
        return text_label(examples.unit, self.name, first_line(self.endpoint.ask(messages, 48)), promotes)
