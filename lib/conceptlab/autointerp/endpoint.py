"""Any OpenAI-compatible chat endpoint, by URL and key from the environment; answers are kept on disk.

The key goes into the request's header and nowhere else: it is in no message, transcript, representation or error.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..core import ConceptLabError, atomic_path, cache_dir
from .examples import Example, UnitExamples
from .explain import Label, OutputExplainer, text_label
from .prompts import explain_messages, first_line, marked, rate_messages, read_ratings

URL, KEY, MODEL = "CONCEPTLAB_LLM_URL", "CONCEPTLAB_LLM_KEY", "CONCEPTLAB_LLM_MODEL"


@dataclass(frozen=True)
class EndpointConfig:
    """Where to ask, and how patiently."""

    url: str  # up to and including the version, e.g. "http://localhost:8000/v1"; /chat/completions is appended
    model: str  # name of the model there
    timeout: float = 60.0  # seconds for one answer
    retries: int = 5  # further attempts after 429, a server's error, a lost connection or a timeout
    backoff: float = 1.0  # seconds before the first of them; doubled each time, unless the server says how long
    longest_wait: float = 60.0  # seconds, whatever the server says
    max_tokens: int = 256  # of an answer
    temperature: float = 0.0


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
        self.cfg, self._key, self._wait = cfg, key.strip(), wait
        self.folder = folder or cache_dir() / "transcripts"
        self.calls = self.cached = self.tokens_in = self.tokens_out = 0
        self._bar = tqdm(bar_format="{desc}", disable=not progress, file=sys.stderr)

    @classmethod
    def from_environment(cls, **changes) -> Endpoint:
        """The endpoint that CONCEPTLAB_LLM_URL, _KEY and _MODEL name; raises ConceptLabError when one is not set.

        The key may be empty (a server of your own), the other two may not.
        """
        for name in (URL, MODEL):
            if not os.environ.get(name):
                raise ConceptLabError(f"No endpoint is configured: set {URL}, {MODEL} and, where it needs one, {KEY}.")
        return cls(EndpointConfig(os.environ[URL], os.environ[MODEL]), os.environ.get(KEY, ""), **changes)

    def __repr__(self) -> str:
        return f"Endpoint({self.cfg.model} at {self.host}: {self.calls} calls, {self.cached} from the cache)"

    @property
    def host(self) -> str:
        """The server's name: of a URL, only this is ever shown (users write keys into URLs)."""
        try:
            return httpx.URL(self.cfg.url).host or "without a host"
        except httpx.InvalidURL:
            return "without a host"

    def ask(self, messages: Sequence[dict[str, str]], max_tokens: int | None = None) -> str:
        """The answer to a chat. Raises ConceptLabError when the server refuses, or fails after all retries."""
        body = {
            "model": self.cfg.model, "messages": list(messages), "temperature": self.cfg.temperature,
            "max_tokens": max_tokens or self.cfg.max_tokens,
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps([self.cfg.url, body], sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{digest[:32]}.json"
        if path.exists():
            self.cached += 1
            answer = json.loads(path.read_text())["answer"]
        else:
            answer, usage = self._read(self._post(body))
            self.calls += 1
            self.tokens_in += usage.get("prompt_tokens") or 0
            self.tokens_out += usage.get("completion_tokens") or 0
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps({"request": body, "answer": answer, "usage": usage}, indent=1))
        self._bar.set_description_str(
            f"{self.cfg.model}: {self.calls} calls, {self.cached} from the cache, "
            f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out"
        )
        return answer

    def _post(self, body: dict) -> httpx.Response:
        """One answer of the server, after as many attempts as it takes."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        for attempt in range(self.cfg.retries + 1):
            pause = min(self.cfg.backoff * 2**attempt, self.cfg.longest_wait)
            try:
                url = self.cfg.url.rstrip("/") + "/chat/completions"
                response = httpx.post(url, json=body, headers=headers, timeout=self.cfg.timeout)
            except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
                problem = type(error).__name__
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
                raise ConceptLabError(
                    f"The endpoint {self.host} cannot be asked ({type(error).__name__}); check {URL} and {KEY}."
                ) from None
            else:
                if response.status_code == 200:
                    return response
                problem = f"status {response.status_code}"
                if response.status_code != 429 and response.status_code < 500:
                    self._refuse(response)
                pause = self._pause(response, pause)
            if attempt < self.cfg.retries:
                self._wait(pause)
        raise ConceptLabError(
            f"The endpoint {self.host} did not answer after {self.cfg.retries + 1} attempts ({problem}); "
            "answers so far are kept, call again later."
        )

    def _pause(self, response: httpx.Response, otherwise: float) -> float:
        try:
            return min(max(0.0, float(response.headers["retry-after"])), self.cfg.longest_wait)
        except (KeyError, ValueError):
            return otherwise

    def _refuse(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            raise ConceptLabError(f"The endpoint {self.host} refused the key; check {KEY}.")
        said = " ".join(response.text.split())
        if self._key:
            said = said.replace(self._key, "***")  # some servers repeat what they were sent
        raise ConceptLabError(
            f"The endpoint {self.host} refused the request (status {response.status_code}: {said[:120]}); "
            f"check {URL} and {MODEL}."
        )

    def _read(self, response: httpx.Response) -> tuple[str, dict]:
        try:
            content = response.json()
            return content["choices"][0]["message"]["content"] or "", content.get("usage") or {}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise ConceptLabError(
                f"The endpoint {self.host} answered with something that is no chat completion; check {URL}."
            ) from None

    def settings(self) -> dict:
        """What a table's provenance may say of it: no key, and of the URL the host."""
        return asdict(self.cfg) | {"url": self.host}


class EndpointJudge:
    """A judge at an endpoint: it rates `batch_size` contexts per call from 0 to 100."""

    name = "endpoint"

    def __init__(self, endpoint: Endpoint, batch_size: int = 10):
        self.endpoint, self.batch_size = endpoint, batch_size

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """Ratings. Raises ConceptLabError when an answer holds no list of numbers of the right length."""
        found: list[float] = []
        for start in range(0, len(contexts), self.batch_size):
            texts = [marked(context) for context in contexts[start : start + self.batch_size]]
            answer = self.endpoint.ask(rate_messages(label.text, texts))
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
