"""An empty cache folder's files by name, and an error that is one sentence."""


def left(folder):
    """Files below a folder, by name."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 500 and text.endswith((".", "1.0")), text
    return text
