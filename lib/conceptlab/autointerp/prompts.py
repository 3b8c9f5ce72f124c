"""Prompts of the judges and explainers that read language: few-shot, short, the token in question marked <<so>>.

The examples are made up and of no model's feature; a test sees to it that the parser reads every answer in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..core import ConceptLabError
from .examples import Example


def marked(context: Example, before: int = 16) -> str:
    """The text up to the token, one line, the token between << and >>; at most `before` tokens in front."""
    front = "".join(context.tokens[max(0, context.place - before) : context.place])
    front = re.sub(r"\s+", " ", front).strip()
    return f"{front} <<{context.token.strip()}>>".strip()


# ---- a judge that answers yes or no ---------------------------------------------------------------------
def judge_head(description: str) -> str:
    """What stands between the answered examples and the text to be judged, which follows after a space."""
    return f"Description: {description or 'N/A'}\nText:"


_YES_NO = (
    ("on ' Nile', ' Danube'; mostly capitalised words; among river, water", "They sailed up the <<Danube>>", "yes"),
    ("on ' gold', ' silver'; after ' pure'; promotes ' metal'", "The committee met again on <<Friday>>", "no"),
    ("mostly digits; after ' in'; among century, born", "He was born in Vienna in <<18>>", "yes"),
    ("on ' said', ' told'; among president; promotes ' that'", "leaves turn red in <<autumn>>", "no"),
)


JUDGE_PROMPT = "Does the description fit the marked word of the text? Answer yes or no.\n\n" + "".join(
    f"{judge_head(description)} {text}\nAnswer: {answer}\n\n" for description, text, answer in _YES_NO
)


# ---- an explainer that writes a line --------------------------------------------------------------------
_SHOTS = (
    (("sailed up the <<Danube>>", "the mouth of the <<Nile>>", "bridges over the <<Rhine>>"), "names of rivers"),
    (("was born in <<1874>>", "the treaty of <<1648>>", "from <<1903>> until"), "years"),
    (("she would <<have>> known", "must <<have>> been built", "could <<have>> won"), "'have' after a modal verb"),
)


def _contexts(texts: Sequence[str]) -> str:
    return "".join(f"- {text}\n" for text in texts)


EXPLAIN_PROMPT = "What do the marked words have in common?\n\n" + "".join(
    f"{_contexts(texts)}Answer: {answer}\n\n" for texts, answer in _SHOTS
)


def explain_prompt(texts: Sequence[str]) -> str:
    """The few-shot prompt with the contexts of one unit; the model's line follows."""
    return f"{EXPLAIN_PROMPT}{_contexts(texts)}Answer:"


def first_line(answer: str, n_words: int = 16) -> str:
    """The first line that is not blank, without quotation marks round it, at most `n_words` words."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return " ".join(lines[0].split()[:n_words]).strip('"*` .') if lines else ""


# ---- chat messages for an endpoint ----------------------------------------------------------------------
def explain_messages(texts: Sequence[str], promoted: Sequence[str] = ()) -> list[dict[str, str]]:
    """Ask a chat model for one line about a unit, from its contexts and (if given) the tokens that it promotes."""
    system = (
        "You describe a unit of a language model. The marked <<words>> are where it fires. "
        "Answer with one short phrase, at most 12 words, that says what they have in common. No preamble."
    )
    user = _contexts(texts) + (f"The unit promotes: {', '.join(map(repr, promoted))}\n" if promoted else "")
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def rate_messages(description: str, texts: Sequence[str]) -> list[dict[str, str]]:
    """Ask a chat model how well a description fits the marked word of each text: a JSON list of 0 to 100."""
    system = (
        "A unit of a language model has a description. For each numbered text say how likely the unit fires on the "
        f"marked <<word>>, from 0 to 100. Answer with a JSON list of {len(texts)} numbers and nothing else."
    )
    numbered = "\n".join(f"{i + 1}. {text}" for i, text in enumerate(texts))
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"Description: {description or 'N/A'}\n{numbered}"},
    ]


def read_ratings(answer: str, n: int) -> list[float]:
    """The `n` numbers from 0 to 100 of an answer to `rate_messages`; raises ConceptLabError for any other answer."""
    lists = [_ratings(found) for found in re.findall(r"\[[^\[\]]*\]", answer)]
    fitting = [numbers for numbers in lists if len(numbers) == n]
    if len(fitting) != 1:
        raise ConceptLabError(
            f"The endpoint's model was asked for a list of {n} numbers from 0 to 100 and answered {answer[:80]!r}; "
            "use a model that follows instructions."
        )
    return fitting[0]


def _ratings(text: str) -> list[float]:
    """The numbers of a JSON list; empty where one of its items is no number from 0 to 100."""
    try:
        items = json.loads(text)
    except ValueError:
        return []
    return [float(x) for x in items] if all(type(x) in (int, float) and 0 <= x <= 100 for x in items) else []
