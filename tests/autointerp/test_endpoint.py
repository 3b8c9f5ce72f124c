"""The endpoint client against a server in this process: retries, transcripts, and a key that never shows."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

KEY = "sk-very-secret-0123456789"


class Stub:
    """A chat server that answers from a list of replies: (status, body or text, headers), or "hang up"."""

    def __init__(self):
        self.replies, self.requests, self.keys = [], [], []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                raw = self.rfile.read(int(self.headers["content-length"]))
                stub.requests.append((self.path, json.loads(raw)))
                stub.keys.append(self.headers.get("authorization"))
                reply = stub.replies.pop(0) if stub.replies else "ok"
                if reply == "hang up":
                    return self.connection.close()
                status, body, headers = reply if isinstance(reply, tuple) else (200, said(reply), {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def said(text):
    return {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 1200, "completion_tokens": 7}}


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def connect(stub, tmp_path):
    """Factory of an endpoint at the stub; waits are recorded, not waited for."""
    from conceptlab.autointerp import Endpoint, EndpointConfig

    def make(url=None, **changes):
        waits = []
        cfg = EndpointConfig(url or stub.url, "judge-1", **{"retries": 3, "timeout": 20.0} | changes)
        endpoint = Endpoint(cfg, KEY, folder=tmp_path / "transcripts", progress=False, wait=waits.append)
        return endpoint, waits

    return make


QUESTION = [{"role": "user", "content": "What do they have in common?"}]


def test_an_answer_is_asked_for_once_and_then_kept(stub, connect, tmp_path):
    stub.replies = ["rivers"]
    endpoint, _ = connect()
    assert endpoint.ask(QUESTION) == endpoint.ask(QUESTION) == "rivers"
    ((path, body),) = stub.requests
    assert path == "/v1/chat/completions" and stub.keys == [f"Bearer {KEY}"]
    assert body == {"model": "judge-1", "messages": QUESTION, "temperature": 0.0, "max_tokens": 256}
    assert (endpoint.calls, endpoint.cached, endpoint.tokens_in, endpoint.tokens_out) == (1, 1, 1200, 7)
    assert connect()[0].ask(QUESTION) == "rivers" and len(stub.requests) == 1, "another session finds it"
    assert endpoint.ask(QUESTION, max_tokens=5) == "ok" and len(stub.requests) == 2, "another request is another answer"
    (kept, _) = sorted((tmp_path / "transcripts").iterdir())
    assert json.loads(kept.read_text())["answer"] in ("rivers", "ok")


def test_it_is_patient_with_a_busy_server(stub, connect):
    stub.replies = [(429, "slow down", {}), (503, "", {}), "hang up", "at last"]
    endpoint, waits = connect()
    assert endpoint.ask(QUESTION) == "at last" and waits == [1.0, 2.0, 4.0]
    stub.replies = [(429, "", {"Retry-After": "7"}), (429, "", {"Retry-After": "9999"}), "yes"]
    endpoint, waits = connect(longest_wait=30.0)
    assert endpoint.ask([{"role": "user", "content": "again"}]) == "yes" and waits == [7.0, 30.0]


def test_it_gives_up_after_the_last_attempt(stub, connect, tmp_path):
    from conceptlab.core import ConceptLabError

    stub.replies = [(500, "", {})] * 4
    endpoint, waits = connect()
    with pytest.raises(ConceptLabError, match=r"did not answer after 4 attempts \(status 500\)"):
        endpoint.ask(QUESTION)
    assert waits == [1.0, 2.0, 4.0] and not stub.replies
    assert not list((tmp_path / "transcripts").glob("*.json")), "a failure is not kept"
    nobody, _ = connect(url="http://127.0.0.1:1/v1", retries=0)
    with pytest.raises(ConceptLabError, match="ConnectError"):
        nobody.ask(QUESTION)


def test_refusals_and_nonsense_are_one_sentence(stub, connect):
    from conceptlab.core import ConceptLabError

    cases = [
        ((401, "", {}), "refused the key; check CONCEPTLAB_LLM_KEY"),
        ((404, f"no model judge-1 for {KEY}", {}), r"status 404: no model judge-1 for \*\*\*"),
        ((200, "<html>", {}), "no chat completion"),
        ((200, {"choices": []}, {}), "no chat completion"),
        ((200, ["x"], {}), "no chat completion"),
        ((302, "", {"Location": "http://127.0.0.1:1/"}), "status 302"),
    ]
    for reply, message in cases:
        stub.replies = [reply]
        endpoint, waits = connect()
        with pytest.raises(ConceptLabError, match=message):
            endpoint.ask(QUESTION)
        assert not waits, "what cannot become better is not asked again"
    for url in ("no url at all", "http://"):
        with pytest.raises(ConceptLabError, match="check CONCEPTLAB_LLM_URL"):
            connect(url=url)[0].ask(QUESTION)


def test_the_key_shows_nowhere(stub, connect, tmp_path, capsys):
    import traceback

    from conceptlab.autointerp import Endpoint, EndpointConfig
    from conceptlab.core import ConceptLabError

    secret_url = stub.url.replace("http://", f"http://user:{KEY}@") + f"/{KEY}"
    cfg = EndpointConfig(secret_url, "judge-1", retries=0)
    endpoint = Endpoint(cfg, KEY, folder=tmp_path / "transcripts", progress=True)
    endpoint.ask(QUESTION)
    shown = [repr(endpoint), str(endpoint.settings())]
    for reply in ((401, KEY, {}), (400, KEY, {}), (500, KEY, {}), (200, KEY, {}), "hang up"):
        stub.replies = [reply]
        with pytest.raises(ConceptLabError) as caught:
            endpoint.ask([{"role": "user", "content": str(reply)[:12]}])
        shown.append("".join(traceback.format_exception(caught.value)))
    streams = capsys.readouterr()
    shown += [streams.out, streams.err, *(p.name + p.read_text() for p in (tmp_path / "transcripts").iterdir())]
    assert "1 calls, 0 from the cache, 1,200 tokens in, 7 out" in streams.err
    assert not [text for text in shown if KEY in text]


def test_the_environment_names_the_endpoint(stub, monkeypatch, tmp_path):
    from conceptlab.autointerp import Endpoint
    from conceptlab.core import ConceptLabError

    for name in ("URL", "KEY", "MODEL"):
        monkeypatch.delenv(f"CONCEPTLAB_LLM_{name}", raising=False)
    with pytest.raises(ConceptLabError, match="set CONCEPTLAB_LLM_URL, CONCEPTLAB_LLM_MODEL"):
        Endpoint.from_environment()
    monkeypatch.setenv("CONCEPTLAB_LLM_URL", stub.url + "/")
    monkeypatch.setenv("CONCEPTLAB_LLM_MODEL", "judge-1")
    endpoint = Endpoint.from_environment(folder=tmp_path, progress=False)
    assert endpoint.ask(QUESTION) == "ok" and stub.keys == [None], "a server of one's own needs no key"
    assert stub.requests[0][0] == "/v1/chat/completions"


def test_a_judge_rates_in_batches(stub, connect):
    from conceptlab.autointerp import EndpointJudge
    from conceptlab.core import ConceptLabError
    from contexts import random_contexts, random_label

    stub.replies = ["Sure: [0, 55.5, 100]", "[7, 8]"]
    endpoint, _ = connect()
    contexts = random_contexts(5)
    judge = EndpointJudge(endpoint, batch_size=3)
    assert judge.judge(random_label(0, 0), contexts).tolist() == [0, 55.5, 100, 7, 8]
    asked = stub.requests[1][1]["messages"][1]["content"]
    assert asked.startswith("Description: label 0\n1. ") and asked.count("<<") == 2
    for answer in ("[1, 2]", "I cannot.", '["a", "b", "c"]', "[1, [2], 3]"):
        stub.replies = [answer]
        with pytest.raises(ConceptLabError, match="a list of 3 numbers"):
            judge.judge(random_label(0, len(answer)), contexts[:3])


def test_an_explainer_shows_contexts_and_promoted_tokens(stub, connect):
    from conceptlab.autointerp import EndpointExplainer, Label
    from contexts import context, examples_of, writer_of

    writer = writer_of(Label(0, "output_side", "", promotes={" bank": 1.0}))
    stub.replies = ["Names of rivers.\n", "rivers"]
    endpoint, _ = connect()
    examples = examples_of([context("along the Nile"), context("over the Rhine")])
    label = EndpointExplainer(endpoint, writer, n_contexts=1).explain(examples)
    assert label.text == "Names of rivers" and label.method == "endpoint" and set(label.promotes) == {" bank"}
    assert "rivers" in label.words
    assert stub.requests[0][1]["messages"][1]["content"] == "- along the <<Nile>>\nThe unit promotes: ' bank'\n"
    assert EndpointExplainer(endpoint).explain(examples).promotes == {}
