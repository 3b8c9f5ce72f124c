"""The endpoint client against a server in this process: retries, transcripts, and a key that never shows."""

import json
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

KEY = "sk-very-secret-0123456789"


class Stub:
    """A chat server that answers from a list of replies: (status, body or text, headers), or a way to misbehave."""

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
                if reply in ("drip headers", "drip body", "say nothing"):
                    return stub.slowly(self, reply)
                status, body, headers = reply if isinstance(reply, tuple) else (200, said(reply), {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

            def log_message(self, *_):
                pass

        self.closed = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def slowly(self, handler, how):
        """A byte every 0.1 s for a minute, or until the client is gone."""
        start = {"drip headers": b"HTTP/1.1 200 OK\r\nX-Slow: ", "drip body": b"HTTP/1.1 200 OK\r\n\r\n"}.get(how, b"")
        try:
            handler.wfile.write(start)
            for _ in range(600):
                if self.closed.wait(0.1):
                    return
                handler.wfile.write(b"x" if start else b"")
                handler.wfile.flush()
        except OSError:
            pass

    def close(self):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()


def said(text):
    return {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 1200, "completion_tokens": 7}}


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Stub()
    yield made
    made.close()


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


# ---- what a server may do -----------------------------------------------------------------------------------
def library_shown(error):
    """An error's text and, of its traceback, the library's frames with their variables (the test's own hold the key).

    There must be no error behind it: its frames would be those of the HTTP client.
    """
    assert error.__cause__ is None and error.__context__ is None
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    return "\n".join([str(error), *(str(f.locals) for f in frames if "conceptlab" in f.filename)])


def test_a_server_that_repeats_the_header_in_every_encoding(stub, connect, tmp_path, capsys):
    from conceptlab.core import ConceptLabError
    from encodings_of import encodings

    shown, texts = [], list(encodings(KEY).values())
    for i, said_back in enumerate(texts):
        question = [{"role": "user", "content": f"question {i}"}]
        body = said(f"You sent {said_back}, thanks") | {"usage": {"prompt_tokens": 3, "note": said_back, said_back: 4}}
        stub.replies = [(200, body, {"X-Echo": quote(said_back)})]
        endpoint, _ = connect()
        shown += [endpoint.ask(question), connect()[0].ask(question), repr(endpoint), repr(vars(endpoint))]
        assert shown[-4].startswith("You sent ") and shown[-4].endswith(", thanks") and shown[-3] == shown[-4]
    for i, said_back in enumerate(texts[:24]):
        for status in (400, 422, 401, 302, 500):
            stub.replies = [(status, said_back, {"X-Echo": quote(said_back), "Location": quote(said_back)})]
            with pytest.raises(ConceptLabError) as caught:
                connect(retries=0)[0].ask([{"role": "user", "content": f"{i} {status}"}])
            shown.append(library_shown(caught.value))
    kept = [p.read_text(encoding="utf-8") for p in (tmp_path / "transcripts").glob("*.json")]
    assert len(kept) == len(texts) and all(json.loads(x)["usage"] == {"prompt_tokens": 3} for x in kept)
    streams = capsys.readouterr()
    everything = "\n".join([*shown, *kept, streams.out, streams.err])
    for name, text in encodings(KEY).items():
        assert text not in everything, name
    assert KEY.lower() not in everything.lower()


def test_nothing_of_the_url_is_shown_but_the_host(stub, tmp_path):
    from conceptlab.autointerp import Endpoint, EndpointConfig
    from conceptlab.core import ConceptLabError

    url = stub.url.replace("http://", "http://me:pass-word-1@") + "?key=query-secret-2"
    cfg = EndpointConfig(url, "judge-1", retries=0)
    endpoint = Endpoint(cfg, folder=tmp_path, progress=False)
    stub.replies = [(400, "pass-word-1 and query-secret-2", {})]
    with pytest.raises(ConceptLabError) as caught:
        endpoint.ask(QUESTION)
    shown = [str(caught.value), repr(cfg), repr(endpoint), str(endpoint.settings())]
    assert not [x for x in shown if "pass-word" in x or "query-secret" in x]
    assert endpoint.settings()["url"] == "127.0.0.1"


def test_the_key_does_not_follow_to_another_host(stub, connect):
    from conceptlab.core import ConceptLabError

    elsewhere = Stub()
    try:
        for status in (301, 302, 303, 307, 308):
            for target in (elsewhere.url, elsewhere.url.replace("127.0.0.1", "localhost"), "//127.0.0.1/"):
                stub.replies = [(status, "", {"Location": target})]
                with pytest.raises(ConceptLabError, match=rf"elsewhere \(status {status}\).*set CONCEPTLAB_LLM_URL"):
                    connect()[0].ask(QUESTION)
        assert not elsewhere.requests and set(stub.keys) == {f"Bearer {KEY}"}
    finally:
        elsewhere.close()


def test_the_time_limit_holds_however_slowly_the_server_speaks(stub, connect):
    from conceptlab.core import ConceptLabError

    for slow in ("drip headers", "drip body", "say nothing"):
        stub.replies = [slow] * 2
        endpoint, _ = connect(timeout=0.3, retries=1)
        started = time.monotonic()
        with pytest.raises(ConceptLabError, match=r"did not answer after 2 attempts \(\w*Timeout\w*\)"):
            endpoint.ask(QUESTION)
        assert time.monotonic() - started < 3, f"{slow}: 2 attempts of 0.3 s each; the server would take 60 s"


def test_an_answer_without_end(stub, connect, monkeypatch):
    from conceptlab.autointerp import request
    from conceptlab.core import ConceptLabError

    monkeypatch.setattr(request, "MOST_BYTES", 1000)
    stub.replies = [(200, "x" * 1001, {})]
    with pytest.raises(ConceptLabError, match="an answer without end"):
        connect()[0].ask(QUESTION)


@pytest.mark.parametrize(
    "content", [None, 7, 1.5, True, [], ["text"], [{"type": "text", "text": "rivers"}], {"text": "rivers"}, "", " \n"]
)
def test_what_is_no_text_is_no_answer(stub, connect, tmp_path, content):
    from conceptlab.core import ConceptLabError

    stub.replies = [(200, said(content), {}), "rivers"]
    endpoint, _ = connect()
    with pytest.raises(ConceptLabError, match="answered with (something other than a|an empty) text"):
        endpoint.ask(QUESTION)
    assert not list(tmp_path.glob("transcripts/*.json")), "it is not kept"
    assert endpoint.ask(QUESTION) == "rivers"


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"a": ' * 100_000, "", "null", "7", '"text"', "\x00", {"choices": {}}, {"choices": [[]]},
             {"choices": [{"message": None}]}, {"choices": "text"}, {"error": "x"}]
)  # fmt: skip
def test_what_is_no_completion(stub, connect, body):
    from conceptlab.core import ConceptLabError

    stub.replies = [(200, body, {})]
    with pytest.raises(ConceptLabError, match="no chat completion"):
        connect()[0].ask(QUESTION)


@pytest.mark.parametrize(
    "usage", [None, 7, "many", [1], {}, {"prompt_tokens": "12"}, {"prompt_tokens": True}, {"prompt_tokens": None},
              {"prompt_tokens": -4}, {"prompt_tokens": 1.5}, {"prompt_tokens": {"x": 1}}, {"prompt_tokens": 10**400},
              {"cost": KEY, "prompt_tokens_details": {"cached": 3}}]
)  # fmt: skip
def test_odd_usage_counts_for_nothing(stub, connect, tmp_path, usage):
    stub.replies = [(200, said("rivers") | {"usage": usage}, {})]
    endpoint, _ = connect()
    assert endpoint.ask(QUESTION) == "rivers" and (endpoint.tokens_in, endpoint.tokens_out) == (0, 0)
    (kept,) = (tmp_path / "transcripts").iterdir()
    assert json.loads(kept.read_text(encoding="utf-8"))["usage"] == {}


def test_an_odd_charset_and_half_a_character(stub, connect):
    stub.replies = [(200, said("rivers"), {"Content-Type": "application/json; charset=klingon"}), said("a\ud800b")]
    endpoint, _ = connect()
    assert endpoint.ask(QUESTION) == "rivers"
    stub.replies = [(200, said("a\ud800b"), {})]
    assert endpoint.ask([{"role": "user", "content": "half"}]) == "a?b"


def test_how_long_a_server_may_make_us_wait(stub, connect):
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime

    usual = ["-5", "nan", "inf", "-inf", "", "soon", "1,5", "12 s", "Wed, 32 Foo 2026", "Mon, 01 Jan 2001 00:00:00 GMT"]
    for i, value in enumerate(usual):
        stub.replies = [(429, "", {"Retry-After": value}), "yes"]
        endpoint, waits = connect()
        endpoint.ask([{"role": "user", "content": f"usual {i}"}])
        assert waits == [1.0], value
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=25), usegmt=True)
    for i, (value, low, high) in enumerate([("0", 0, 0), ("2.5", 2.5, 2.5), (later, 15, 25), ("9" * 30, 60, 60)]):
        stub.replies = [(503, "", {"Retry-After": value}), "yes"]
        endpoint, waits = connect()
        endpoint.ask([{"role": "user", "content": f"said {i}"}])
        assert low <= waits[0] <= high, value


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0.0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"retries": -1},
              {"backoff": -1.0},
              {"longest_wait": -1.0}, {"max_tokens": 0}, {"max_tokens": True}, {"temperature": -0.1}]
)  # fmt: skip
def test_settings_that_make_no_sense(wrong):
    from conceptlab.autointerp import EndpointConfig
    from conceptlab.core import ConceptLabError

    with pytest.raises(ConceptLabError, match=f"The endpoint's {next(iter(wrong))} must be a"):
        EndpointConfig("http://localhost/v1", "m", **wrong)


def test_a_transcript_is_read_only_where_it_is_whole_and_to_the_question(stub, connect, tmp_path):
    stub.replies = ["first"]
    endpoint, _ = connect()
    endpoint.ask(QUESTION)
    (path,) = (tmp_path / "transcripts").iterdir()
    whole = path.read_text(encoding="utf-8")
    kept = json.loads(whole)
    others = [
        kept | {"request": kept["request"] | {"model": "other"}},
        kept | {"answer": 7},
        kept | {"answer": ""},
        [1],
    ]
    for damaged in ["", whole[:40], "[" * 100_000, *map(json.dumps, others), json.dumps({"answer": "x"})]:
        path.write_text(damaged, encoding="utf-8")
        stub.replies = ["again"]
        assert endpoint.ask(QUESTION) == "again", damaged[:60]
        assert json.loads(path.read_text(encoding="utf-8"))["answer"] == "again", "and it is mended"
    path.write_bytes(b"\xff\xfe\x00")
    stub.replies = ["again"]
    assert endpoint.ask(QUESTION) == "again"


def test_a_transcript_depends_on_server_model_messages_and_settings_not_on_the_key(stub, connect, tmp_path):
    from conceptlab.autointerp import Endpoint, EndpointConfig

    def ask(url=stub.url, key=KEY, model="judge-1", question=QUESTION, **settings):
        cfg = EndpointConfig(url, model, retries=0, **settings)
        return Endpoint(cfg, key, tmp_path / "t", progress=False).ask(question)

    stub.replies = [str(i) for i in range(10)]
    assert ask() == ask(key="another key, the same server") == ask(timeout=5.0, backoff=2.0) == "0"
    assert ask(url=stub.url.replace("http://", "http://me:word@") + "/") == "0"
    changed = [{"model": "judge-2"}, {"temperature": 0.5}, {"max_tokens": 9}, {"question": [*QUESTION, *QUESTION]},
               {"url": stub.url + "/v2"}]  # fmt: skip
    assert [ask(**change) for change in changed] == ["1", "2", "3", "4", "5"]


def test_ratings_are_numbers_in_range_and_of_the_right_count():
    from conceptlab.autointerp.prompts import read_ratings
    from conceptlab.core import ConceptLabError

    assert read_ratings("[0, 55.5, 100]", 3) == [0, 55.5, 100]
    assert read_ratings("For [1] and [2]:\n```json\n[1, 2, 3]\n```", 3) == [1, 2, 3]
    wrong = ["[-5, 1000, 50]", '[true, false, "5"]', "[1, 2, 101]", "[1, 2, -0.01]", "[1, 2, NaN]", "[1, 2, Infinity]",
             "[1, 2, null]", '["1", "2", "3"]', "[1, 2]", "[1, 2, 3, 4]", "[]", "", "1, 2, 3", "[1, [2], 3]", "[1 2 3]",
             "{1, 2, 3}", "[1, 2, 3] or rather [3, 2, 1]", "[1,2,1e400]", "[" * 10_000, "[0x1, 2, 3]"]  # fmt: skip
    for answer in wrong:
        with pytest.raises(ConceptLabError, match="a list of 3 numbers from 0 to 100"):
            read_ratings(answer, 3)


def test_an_answer_without_ratings_is_not_kept(stub, connect):
    from conceptlab.autointerp import EndpointJudge
    from conceptlab.core import ConceptLabError
    from contexts import random_contexts, random_label

    stub.replies = ["I cannot.", "[-5, 1000, 50]", "[1, 2, 3]"]
    judge, label, contexts = EndpointJudge(connect()[0]), random_label(0, 0), random_contexts(3)
    for _ in range(2):
        with pytest.raises(ConceptLabError, match="a list of 3 numbers"):
            judge.judge(label, contexts)
    assert judge.judge(label, contexts).tolist() == judge.judge(label, contexts).tolist() == [1, 2, 3]
    assert len(stub.requests) == 3


def test_an_interrupt_shows_no_key(connect, monkeypatch):
    """The request runs in a thread of its own, so that the traceback of Ctrl-C has no frame that holds the header."""
    import threading

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    endpoint, _ = connect()
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        endpoint.ask(QUESTION)
    monkeypatch.undo()
    assert KEY not in library_shown(caught.value)
