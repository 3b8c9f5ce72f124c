"""A key that shows in no text, in whatever encoding a server repeats it."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, quote_plus

HIDDEN = "***"

SHORTEST = 8  # characters from which on every encoding is looked for; of a shorter key only the key as it is


class Secret:
    """A text that is used, not shown: its representation is a mask, and it is neither pickled nor copied into one."""

    def __init__(self, text: str):
        self._reveal = lambda: text  # a closure: `vars` and a traceback with local variables show no text

    def __repr__(self) -> str:
        return HIDDEN

    def __bool__(self) -> bool:
        return bool(self._reveal())

    def __reduce__(self):
        raise TypeError("A secret is not pickled.")

    def reveal(self) -> str:
        """The text itself, for the one place that sends it."""
        return self._reveal()


class Redactor:
    """Replaces secrets in texts: as they are, escaped, in base64 of any alignment, in hex, and in these twice over.

    Case does not matter, nor what stands between the characters: white space, NUL, or the separators of a hex dump.
    Escapes are those of JSON, URLs, HTML, C and quoted-printable, of any number of characters. A placeholder under
    `SHORTEST` characters ("EMPTY") is replaced where it stands as it is: its encodings would be found by accident.
    """

    def __init__(self, secrets: Iterable[Secret]):
        texts = {text for secret in secrets if (text := secret.reveal())}
        short = sorted(text for text in texts if len(text) < SHORTEST)
        forms = _forms(text for text in texts if len(text) >= SHORTEST)
        self._redact = lambda text: _redacted(text, forms, short)  # a closure, as in `Secret`

    def __repr__(self) -> str:
        return f"Redactor({HIDDEN})"

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        return self._redact(text)


def _forms(texts: Iterable[str]) -> dict[str, int]:
    """What is looked for, with the number of characters at either end that go with it.

    The texts as written in JSON, URLs and HTML, and their encodings, once and twice.
    """
    written = {f for t in texts for f in (t, json.dumps(t)[1:-1], quote(t, safe=""), quote_plus(t), html.escape(t))}
    once = {form for text in written for form in _encoded(text)}
    twice = {form for text in once for form in _encoded(text)}
    forms = {form.lower(): 1 for form in once | twice}  # in base64 the neighbours hold a few bits of it too
    seen = {"".join(unit[0] for unit in _units(text, reader)) for text in written for reader in _READERS}
    seen |= {form for text in written for form in (text.lower(), text.lower().replace("\\", ""))}
    return forms | dict.fromkeys(seen, 0)


def _encoded(text: str) -> list[str]:
    """The text in hex, and what is certain of its base64 (in both alphabets) at each of the three alignments."""
    raw = text.encode("utf-8")
    found = [raw.hex(), raw.hex().upper()]
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        core = whole[(8 * before + 5) // 6 : (8 * (before + len(raw))) // 6]  # the others hold bits of the neighbours
        found += [core, core.replace("+", "-").replace("/", "_")]
    return found


# How a text is read: what is skipped, and in groups, the code of an escaped character.
_HEX = "([0-9a-f]{2})"
_READERS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"[\s\x00]",
        rf"\\+u00{_HEX}|\\+x{_HEX}|%(?:25)*{_HEX}|&\#x0*{_HEX};|&\#0*(?P<decimal>\d{{2,3}});|\\+|[\s\x00]",
        rf"=\r?\n|={_HEX}|[\s\x00]",  # quoted-printable
        r"0x|\\+x|[\s\x00:,;-]",  # a hex dump
    )
)


def _units(text: str, reader: re.Pattern) -> list[tuple[str, int, int]]:
    """The characters that a reader sees, in lower case, each with its place in the text."""
    found, at = [], 0
    for match in [*reader.finditer(text), None]:
        stop = len(text) if match is None else match.start()
        found += [(_lower(text[i]), i, i + 1) for i in range(at, stop)]
        if match is not None:
            at = match.end()
            codes = [(value, group) for group, value in enumerate(match.groups(), 1) if value]
            for value, group in codes:
                decimal = reader.groupindex.get("decimal") == group
                found.append((_lower(chr(int(value, 10 if decimal else 16))), match.start(), at))
    return found


def _lower(character: str) -> str:
    return character.lower() if len(character.lower()) == 1 else character


def _redacted(text: str, forms: Mapping[str, int], short: Sequence[str]) -> str:
    covered = bytearray(len(text))
    for reader in _READERS if forms else ():
        units = _units(text, reader)
        seen = "".join(unit[0] for unit in units)
        for form, margin in forms.items():
            at = seen.find(form)
            while at >= 0:
                begin, end = units[at][1], units[at + len(form) - 1][2]
                begin -= margin if text[begin - 1 : begin].isalnum() else 0
                end += margin if text[end : end + 1].isalnum() else 0
                covered[begin:end] = b"\1" * (end - begin)
                at = seen.find(form, at + 1)
    shown, at = [], 0
    for run in re.finditer(rb"\x01+", bytes(covered)):
        shown += [text[at : run.start()], HIDDEN]
        at = run.end()
    text = "".join([*shown, text[at:]])
    for secret in short:
        text = text.replace(secret, HIDDEN)
    return text
