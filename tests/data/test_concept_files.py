"""Concept files of every kind of wrongness: one sentence each, with file, line and key."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from conceptlab.core import ConceptLabError, data_dir
from conceptlab.data import Article, attack_data, concepts, general_questions, list_concepts, load_concept, schema
from conceptlab.data import subjects as subjects_module
from conceptlab.data.concepts import TextQuery
from conceptlab.data.yaml_text import MAX_BYTES, MAX_DEPTH, YamlText

# SHA-256 (16 digits) of each concept and of the titles of the leads about it and its neighbour, as first read.
SHIPPED = {
    "ancient_rome": ("b1774b8dde038abe", "78eb54df6dc8b966", "c0154e7f8e2dd105"),
    "artificial_intelligence": ("c17beee52d4713b0", "df14b1e24081c264", "3694ecbd264d3ad3"),
    "astronomy": ("54d5464ac7a06eb1", "96fa0a283a0ab624", "7d2694f05df97796"),
    "baseball": ("6572db89c1dc2dd7", "9cf0447db1b68ffa", "922acfef5da1ed3f"),
    "cancer": ("a6b4b0fb863337ed", "fbfbe5ba0ba243af", "9998bb4742a4d8b2"),
    "chemical_elements": ("2f6eaa10a7bd49af", "d20008865cb53f9e", "ff7528e97bbb4c78"),
    "covid_19": ("424fb447494e46f8", "6a4e7b62e6ef414c", "37ace73947a80e73"),
    "gambling": ("41d5a589bb0d34f4", "990e06ce7efc1f9a", "c9be51ac1156d863"),
    "golf": ("eeed56298b3c60db", "84e45322b952f15e", "5779a17590b3174e"),
    "greek_culture": ("3e3eb9d2c0f9393c", "d6e50cbaa07ee0b1", "559fb1dbcd11c6b0"),
    "halloween": ("501989a422b68f69", "b6037b778811ff71", "5ea86fab7306c465"),
    "harry_potter": ("e7be02e083841b0a", "48b1d768e46ef728", "c01966fa22bfe463"),
    "ireland": ("49a0629119419015", "16d76bc14fb4532c", "e65883f60326239d"),
    "japan": ("4fef90371c15fcd6", "2ae201eaee469583", "9aefc290fe5e7192"),
    "uranium": ("d2451069a6c0d09f", "e62d9d74878544ee", "8251cdc9827cc754"),
    "world_war_ii": ("96e93242b61ab0ac", "301addad5ea75a46", "49fb0947c6add5a9"),
}
ATTACKS = {"prompts": "6e54bb39b902e19b", "translations": "41b30c11863e7048", "fictional": "92cf987879a27e76"}


def digest(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def plain(c):
    query = [sorted(c.query.titles), c.query.any, c.query.min_hits, sorted(c.query.topics)]
    questions = [[vars(q) for q in split] for split in (c.dev, c.test)]
    neighbour = plain(c.neighbour) if c.neighbour else None
    return [c.name, c.title, c.words, c.lookalikes, *query, *questions, neighbour, [vars(a) for a in c.written]]


# ---- the files that are there ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_concepts_are_what_they_were(name):
    concept = load_concept(name)
    found = [digest("\n".join(a.title for a in c.articles())) for c in (concept, concept.neighbour)]
    assert (digest(repr(plain(concept))), *found) == SHIPPED[name]


def test_the_other_files_are_what_they_were():
    assert list_concepts() == list(SHIPPED)
    questions = [vars(q) for split in ("dev", "test") for q in general_questions(split)]
    assert digest(repr(questions)) == "02ef87c62044c95f"
    for name, wanted in ATTACKS.items():
        assert digest(json.dumps(attack_data(name), sort_keys=True, ensure_ascii=False)) == wanted


def test_any_locale_will_do():
    code = "from conceptlab.data import load_concept, list_concepts as names\n"
    code += "print(sum(len(load_concept(n).test) for n in names()))"
    plain_c = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | plain_c, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) == sum(len(load_concept(n).test) for n in list_concepts())


# ---- a small file of one's own ---------------------------------------------------------------------------
SMALL = """\
name: oxygen
title: Oxygen
words: [oxygen, ozone]
texts:
  titles: [Oxygen]
questions:
  dev:
    - {id: a1, q: "What do fires need?", options: [oxygen, sand], answer: 0}
  test:
    - {id: a2, q: "What is O?", options: [a gas, an oxide], answer: 0, claim: "O is {}.", clue: "What do we breathe?"}
neighbour:
  name: nitrogen
  title: Nitrogen
  words: [nitrogen]
  texts: {any: [nitrogen, ammonia], min_hits: 1}
neighbour_questions:
  dev:
    - {id: b1, q: "What is N?", options: [a gas, a metal], answer: 0}
  test:
    - {id: b2, q: "What is in the air?", options: [gold, nitrogen], answer: 1}
near:
  - name: helium
    title: Helium
    words: [helium]
    questions:
      test:
        - {id: c1, q: "What fills balloons?", options: [helium, lead], answer: 0}
"""


@pytest.fixture
def load(tmp_path):
    def make(*changes, text=SMALL, raw=None):
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "mine.yaml"
        path.write_bytes(text.encode("utf-8") if raw is None else raw)
        return load_concept(path)

    return make


def test_the_small_file_loads(load):
    concept = load()
    assert concept.name == "oxygen" and concept.test[0].claim == "O is {}." and concept.neighbour.query.min_hits == 1
    (near,) = concept.near
    assert (near.name, near.title, near.words, near.test[0].gold) == ("helium", "Helium", ("helium",), "helium")


def test_values_are_text_as_written(load):
    concept = load(
        ("[oxygen, ozone]", "[on, null, 007, ~, 1e3, 2024-01-01, 0x1F, .inf, Yes, 1_000]"),
        ("options: [oxygen, sand], answer: 0", "options: [No, Md], answer: 0"),
        ("options: [a gas, an oxide]", "options: [3.10, 3.1]"),
    )
    assert concept.words == ("on", "null", "007", "~", "1e3", "2024-01-01", "0x1F", ".inf", "Yes", "1_000")
    assert concept.dev[0].options == ("No", "Md") and concept.test[0].options == ("3.10", "3.1")


def test_edges_of_options_are_stripped(load):
    concept = load(("[oxygen, sand]", '[" oxygen", "sand\\t"]'), ("[helium, lead]", '["helium ", "\\n lead"]'))
    assert concept.dev[0].options == ("oxygen", "sand") and concept.near[0].test[0].options == ("helium", "lead")
    assert concepts.Question("1", "q?", (" grass", "wood "), 0).gold == "grass"


WRONG = [  # a change of the small file, and what the sentence says
    # unknown and missing keys
    (
        ("title: Oxygen\n", "title: Oxygen\nlookalike: [ozone]\n"),
        "line 3: lookalike is an unknown key; did you mean 'lookalikes'",
    ),
    (("claim:", "clame:"), "clame .question a2. is an unknown key; did you mean 'claim'"),
    (("min_hits:", "min_hit:"), "min_hit is an unknown key; did you mean 'min_hits'"),
    (("title: Oxygen\n", "Title: Oxygen\n"), "title is missing"),
    (("titles: [Oxygen]", "titels: [Oxygen]"), "line 5: texts.titels is an unknown key; did you mean 'titles'"),
    (("words: [oxygen, ozone]\n", ""), "words is missing"),
    (("  words: [nitrogen]\n", ""), "neighbour.words is missing"),
    (("options: [helium, lead], ", ""), r"near\[0\].questions.test\[0\].options .question c1. is missing"),
    (("title: Oxygen\n", "title: Oxygen\n<<: {summary: x}\n"), "<< is an unknown key"),
    # wrong types
    (("[oxygen, ozone]", "oxygen"), "line 3: words must be a list, not 'oxygen'"),
    (("[oxygen, ozone]", "{oxygen: 1}"), "words must be a list, not a mapping"),
    (("[oxygen, ozone]", "[[oxygen]]"), r"words\[0\] must be a text, not a list"),
    (("[oxygen, ozone]", "[]"), "words must have at least 1 entries"),
    (("[oxygen, ozone]", "[oxygen, ' ']"), r"words\[1\] is blank"),
    (("title: Oxygen\n", "title: [Oxygen]\n"), "title must be a text, not a list"),
    (("title: Oxygen\n", "title:\n"), "title is blank"),
    (("titles: [Oxygen]", "titles: Oxygen"), "texts.titles must be a list"),
    (
        ("[oxygen, sand], answer: 0", "[oxygen, sand], answer: 1.9"),
        r"line 8: questions.dev\[0\].answer .question a1. must be a whole",
    ),
    (
        ("[oxygen, sand], answer: 0", "[oxygen, sand], answer: b"),
        "answer .* must be a whole number, 0 or larger, not 'b'",
    ),
    (("[oxygen, sand], answer: 0", "[oxygen, sand], answer: -1"), "must be a whole number"),
    (("[oxygen, sand], answer: 0", "[oxygen, sand], answer: [0]"), "must be a whole number"),
    (("[oxygen, sand], answer: 0", "[oxygen, sand], answer: 1e0"), "must be a whole number"),
    (("[oxygen, sand], answer: 0", "[oxygen, sand], answer: ٣"), "must be a whole number"),
    (
        ("[oxygen, sand], answer: 0", "[oxygen, sand], answer: 2"),
        "answer .question a1. is 2; it counts options from 0 to 1",
    ),
    (("[oxygen, sand]", "oxygen"), "options .question a1. must be a list"),
    (('"What do fires need?"', "null"), r"questions.dev\[0\].q .question a1. must be written in words, not 'null'"),
    (('"What do fires need?"', "7"), "must be written in words, not '7'"),
    (('"What do fires need?"', "~"), "must be written in words"),
    (('"What do fires need?"', "true"), "must be written in words"),
    (('"What do fires need?"', "[What, why]"), "q .question a1. must be a text, not a list"),
    (('"What do fires need?"', '"  "'), "must be written in words"),
    (('"O is {}."', '"O is it."'), "claim .question a2. needs exactly one {} for the answer"),
    (('"O is {}."', '"{} is {}."'), "needs exactly one {} for the answer"),
    (('"What do we breathe?"', "null"), "clue .question a2. must be written in words"),
    (("neighbour:\n", "neighbour: nitrogen\nx:\n"), "neighbour must be a mapping of keys, not 'nitrogen'"),
    (
        ("questions:\n  dev:\n    - {id: a1", "questions:\n  dev:\n    {id: a1"),
        "questions.dev .question a1. must be a list, not a mapping",
    ),
    (("name: oxygen", "name: ../../oxygen"), "name is used in file names"),
    (("name: helium", "name: a/b"), r"near\[0\].name is used in file names"),
    # questions
    (("[oxygen, sand]", "[oxygen, Oxygen]"), "options .question a1. must be distinct options"),
    (("[oxygen, sand]", "[oxygen, ' oxygen ']"), "must be distinct options"),
    (("[oxygen, sand]", "[oxygen, '']"), r"options\[1\] .question a1. is blank"),
    (("[oxygen, sand]", "[oxygen]"), "options .question a1. must have at least 2 entries"),
    (("[oxygen, sand]", "[a, b, c, d, e, f, g, h, i]"), "must have at most 8 entries"),
    (
        ("[helium, lead]", "[helium, lead, tin]"),
        r"near\[0\].questions.test\[0\].options .question c1. has 3 options, others have 2",
    ),
    (("id: a2", "id: a1"), "id .question a1. occurs twice: a1"),
    (("id: b2", "id: a1"), r"neighbour_questions.test\[0\].id .question a1. occurs twice"),
    (("id: c1", "id: b1"), "occurs twice"),
    (("id: a1", "id: ''"), "id .* is blank"),
    (
        ('"What is O?"', '"what do FIRES need"'),
        r"line 10: questions.test\[0\].q .question a2. repeats the question of a1",
    ),
    (
        ('  dev:\n    - {id: b1, q: "What is N?", options: [a gas, a metal], answer: 0}\n', "  dev: []\n"),
        "dev must have at least 1",
    ),
    # texts
    (("min_hits: 1", "min_hits: 0"), "neighbour.texts.min_hits must be at least 1"),
    (("min_hits: 1", "min_hits: 3"), "asks for 3 keywords, but there are 2"),
    (("min_hits: 1", "min_hits: many"), "must be a whole number"),
    (("titles: [Oxygen]", "titles: []"), "line 4: texts names no texts"),
    (("{any: [nitrogen, ammonia], min_hits: 1}", "{}"), "neighbour.texts names no texts"),
    (("any: [nitrogen, ammonia]", "any: [nitrogen, ' ']"), r"any\[1\] is blank"),
    (("name: nitrogen", "name: oxygen"), "neighbour.name is 'oxygen', as name is"),
    (("name: helium", "name: nitrogen"), r"near\[0\].name is 'nitrogen', as neighbour.name is"),
    # YAML itself
    (("title: Oxygen\n", "title: Oxygen\ntitle: Ozone\n"), "line 3: repeats the key 'title', first given in line 2"),
    (("id: a1,", "id: a1, id: a3,"), "line 8: repeats the key 'id'"),
    (("[oxygen, ozone]", "&w [oxygen, ozone]"), "line 3: sets the anchor &w"),
    (("[oxygen, ozone]", "[*w]"), "(uses the alias|is not valid YAML)"),
    (("title: Oxygen", "title: !!python/name:os.system Oxygen"), "line 2: uses the tag"),
    (("title: Oxygen", "title: !!str 7"), "uses the tag"),
    (("title: Oxygen\n", "? [a, b]\n: Oxygen\n"), "has a list or mapping as a key"),
    (("name: oxygen\n", "--- a\n---\nname: oxygen\n"), "begins a second document"),
    (("title: Oxygen\n", "title: Oxygen: gas\n"), "is not valid YAML: line 2"),
    (("title: Oxygen\n", "title: Oxygen\n\tx: 1\n"), "is not valid YAML: line 3"),
    (("title: Oxygen\n", 'title: "Oxy\\qgen"\n'), "is not valid YAML: line 2"),
    (("title: Oxygen\n", "title: Oxy\x07gen\n"), "is not valid YAML"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=lambda x: x if isinstance(x, str) else None)
def test_what_is_wrong_is_one_sentence(load, change, message):
    with pytest.raises(ConceptLabError, match=message) as caught:
        load(change)
    sentence = str(caught.value)
    assert sentence.startswith("mine.yaml") and "\n" not in sentence and "line " in sentence and len(sentence) < 250


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the file must be a mapping of keys"),
        (b"# nothing\n", "must be a mapping of keys"),
        (b"[a, b]", "must be a mapping of keys, not a list"),
        (b"just text", "must be a mapping of keys, not 'just text'"),
        (b"{}", "is missing"),
        (b"[" * 100_000, f"line 1: is nested deeper than {MAX_DEPTH}"),
        (b"{a: " * 100_000, "is nested deeper"),
        (b"- " * 100_000, "is nested deeper"),
        (b"? " * 100_000, "(is nested deeper|as a key)"),
        (b"\n".join(b" " * i + b"a:" for i in range(1_500)), f"line {MAX_DEPTH + 1}: is nested deeper"),
        (b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "sets the anchor"),
        (SMALL.encode("utf-16"), "is not UTF-8 text"),
        (SMALL.encode("utf-16-be"), "is not UTF-8 text"),
        (SMALL.encode("utf-32"), "is not UTF-8 text"),
        (SMALL.replace("Nitrogen", "Azoté").encode("latin-1"), "line 13: is not UTF-8 text; save the file as UTF-8"),
        (SMALL.replace("Nitrogen", "Азот").encode("cp1251"), "is not UTF-8 text"),
        (b"name: a\0b", "is not UTF-8 text"),
        (b"#" * (MAX_BYTES + 1), f"bytes; at most {MAX_BYTES:,} are read"),
        (b"\x89PNG\r\n\x1a\n", "is not UTF-8 text"),
    ],
    ids=range(19),
)
def test_files_that_are_no_concept_at_all(load, raw, message):
    with pytest.raises(ConceptLabError, match=message):
        load(raw=raw)


def test_a_byte_order_mark_of_utf8_and_windows_line_ends_do_not_matter(load):
    wanted = load()
    assert load(raw=b"\xef\xbb\xbf" + SMALL.encode("utf-8")) == wanted
    assert load(raw=SMALL.replace("\n", "\r\n").encode("utf-8")) == wanted


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConceptLabError, match="is a folder or a device; give a file"):
        load_concept(tmp_path / "folder.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConceptLabError, match="is a folder or a device"):
        load_concept(tmp_path / "pipe.yaml")


def test_the_count_of_further_faults(load):
    with pytest.raises(ConceptLabError, match=r"is missing \(1 more after it\)"):
        load(("title: Oxygen\n", ""), ("words: [helium]", "words: helium"))


def test_lines_of_places(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a:\n  - b: 1\n    c:\n      - x\n      - y\n", encoding="utf-8")
    file = YamlText(path)
    assert file.content == {"a": [{"b": "1", "c": ["x", "y"]}]}
    places = {(): 1, ("a",): 1, ("a", 0): 2, ("a", 0, "c"): 3, ("a", 0, "c", 1): 5, ("a", 0, "d"): 2, ("a", 4): 1}
    assert {place: file.line(place) for place in places} == places


def test_without_libyaml_it_reads_the_same(load, monkeypatch):
    wanted = load()
    monkeypatch.delattr("yaml.CBaseLoader")
    assert load() == wanted
    with pytest.raises(ConceptLabError, match="nested deeper"):
        load(raw=b"[" * 1_000)


# ---- the other files of data/ ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("prompts", "role:", "rolle:", "prompts.yaml, line .*: role is missing"),
        ("prompts", "direct:\n    lead:", "direct:\n    led:", "step_by_step.direct.lead is missing"),
        ("fictional", "answer: 1, claim", "answer: 4, claim", "fictional.yaml, line .*: questions.* is 4; it counts"),
        ("fictional", ', claim: "The capital of Velmora is {}."', "", "has no claim"),
        ("translations", "    name: German\n", "", "languages.de.name is missing"),
        ("translations", '["Silber", "Eisen",', '["Eisen", "Eisen",', "must be distinct options"),
        (
            "translations",
            '["Silber", "Eisen",',
            '["Silber",',
            "has another number of options from language to language",
        ),
        (
            "translations",
            "  chem-d71:\n    de:",
            "  chem-d71:\n    xx:",
            "questions.chem-d71 needs the languages de, fr, es",
        ),
    ],
)
def test_attack_files(tmp_path, monkeypatch, name, old, new, message):
    text = (data_dir() / "attacks" / f"{name}.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / f"{name}.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(subjects_module, "data_dir", lambda: tmp_path)
    with pytest.raises(ConceptLabError, match=message):
        attack_data.__wrapped__(name)


def test_names_that_do_not_exist():
    for name in ("prompt", "", "../concepts/japan"):
        with pytest.raises(ConceptLabError, match="known are prompts, translations, fictional"):
            attack_data(name)
    for split in ("train", "", "Test"):
        with pytest.raises(ConceptLabError, match="for 'dev' and for 'test'"):
            general_questions(split)
    for name in ("", "general ", "Japan", "../attacks/nothing", "japan.yaml"):
        with pytest.raises(ConceptLabError, match="No concept"):
            load_concept(name)


def test_every_key_of_a_schema_can_be_suggested():
    assert {"words", "lookalikes", "claim", "few_shot", "near", "min_hits"} <= set(schema._KEYS)


# ---- keywords of any script ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("café", "A café in the street.", True),
        ("café", "A cafe\u0301 in the street.", True),  # the accent as a character of its own
        ("cafe\u0301", "CAFÉ!", True),
        ("café", "Many cafés.", False),
        ("caf", "A café.", False),
        ("São", "in são paulo", True),
        ("são paulo", "In São Paulo.", True),
        ("Łódź", "The city of ŁÓDŹ", True),
        ("łód", "Łódź", False),
        ("москва", "Москва, столица", True),
        ("москв", "Москва", False),
        ("東京", "東京 is Tokyo", True),
        ("straße", "Die Straße.", True),
        ("iron", "iron2iron", True),
        ("iron", "ironé", False),
        ("ukiyo-e", "An ukiyo-e print", True),
        ("naïve", "na ve", False),
    ],
)
def test_keywords_are_whole_words_of_any_script(keyword, text, found):
    query = TextQuery(frozenset(), (keyword,), 1)
    assert query.matches(Article("T", text, "Arts", "")) is found
