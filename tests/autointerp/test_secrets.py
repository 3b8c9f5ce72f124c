"""A key that no text shows, in whatever encoding it comes."""

import base64
import copy
import pickle

import pytest

from encodings_of import encodings

KEYS = [
    "sk-very-secret-0123456789",
    "sk-proj-" + "aB3_-x9Z" * 20,
    'k/+="\\& and a key',
    "=abcdef-%4d==0",
    "Schlüssel-£-12345",
]


def pieces(key):
    """Every six characters in a row of what the key looks like: none may be left. (Fewer are met by accident.)"""
    raw = key.encode()
    forms = [
        key.lower(),
        raw.hex(),
        *(base64.b64encode(b"x" * n + raw + b"xx").decode()[2:-4].lower() for n in range(3)),
    ]
    return {form[i : i + 12] for form in forms for i in range(4, len(form) - 16)}


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_no_encoding_is_left_over(key):
    from conceptlab.autointerp.secrets import HIDDEN, Redactor, Secret

    redact = Redactor([Secret(key)])
    for name, text in encodings(key).items():
        shown = redact(f"it said {text} and more")
        assert HIDDEN in shown, name
        assert shown.startswith("it said ") and shown.endswith(" and more"), f"{name}: only the key goes"
        assert not [x for x in pieces(key) if x in shown.lower()], name
        assert redact(shown) == shown, name


def test_other_texts_stay_as_they_are():
    from conceptlab.autointerp.secrets import Redactor, Secret

    redact = Redactor([Secret(KEYS[0]), Secret("")])
    for text in (
        "",
        "Names of rivers.",
        "100 % of \\u00e9 = 3D, &#65;",
        "sk-very",
        "\x00\x00",
        "[1, 2]",
        "😀 % %2 \\",
        "İ" * 9,
    ):
        assert redact(text) == text
    assert Redactor([Secret("")])("anything") == "anything"
    placeholder = Redactor([Secret("EMPTY")])
    assert placeholder("an empty box") == "an empty box", "a placeholder is no secret"
    assert placeholder("Bearer EMPTY") == "Bearer ***"
    assert len(redact("\\" * 20_000 + " " * 20_000 + "%25" * 5_000)) == 55_000, "long runs take linear time"


def test_several_secrets_and_repeats():
    from conceptlab.autointerp.secrets import Redactor, Secret

    redact = Redactor([Secret("first-secret-1"), Secret("second-secret")])
    assert redact("first-secret-1, second-secret; FIRST-SECRET-1") == "***, ***; ***"


def test_objects_show_no_key():
    from conceptlab.autointerp.secrets import Redactor, Secret

    secret = Secret(KEYS[0])
    redact = Redactor([secret])
    assert repr(secret) == str(secret) == f"{secret}" == "***" and secret and not Secret("")
    assert KEYS[0] not in repr(vars(secret)) + repr(vars(redact)) + repr(redact)
    for moved in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            moved(secret)
