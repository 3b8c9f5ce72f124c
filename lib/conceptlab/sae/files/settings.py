"""Configurations of others, read by what is known: a key or value that is not is refused, never passed over."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...core import ConceptLabError

DTYPES = ("float64", "float32", "float16", "bfloat16")  # read as stored, used as float32


class Settings:
    """A configuration of a dictionary, of which in the end every key must have been read or be known as harmless."""

    def __init__(self, cfg: Mapping, path: str, accept: Collection[str] = ()):
        if not isinstance(cfg, Mapping):
            raise ConceptLabError(f"{path}: the configuration is a {type(cfg).__name__}, not a table of settings.")
        self.cfg, self.path, self.read = cfg, path, set(accept)

    def get(self, key: str, default=None):
        """The value of a key, None and absence alike giving `default`; the key counts as read."""
        self.read.add(key)
        value = self.cfg.get(key)
        return default if value is None else value

    def size(self, *keys: str) -> int:
        """A positive whole number under one of several keys. Raises ConceptLabError where there is none."""
        found = next((value for key in keys if (value := self.get(key)) is not None), None)
        if found is None:
            raise KeyError(keys[0])
        if isinstance(found, bool) or not isinstance(found, int | float) or found != int(found) or found < 1:
            raise ConceptLabError(f"{self.path}: {keys[0]} is {found!r}, not a whole number of at least 1.")
        return int(found)

    def only(self, key: str, allowed: Collection, why: str, default=None):
        """The value of a key, which must be one of `allowed` (or absent); `why`: what is wrong and what to do."""
        value = self.get(key, default)
        if value != default and not any(value == known and type(value) is type(known) for known in allowed):
            raise ConceptLabError(f"{self.path} has {key} = {value!r}: {why}.")
        return value

    def dtype(self) -> None:
        """The number format, which must be one that float32 holds without change of meaning."""
        value = str(self.get("dtype", "float32")).removeprefix("torch.")
        if value not in DTYPES:
            raise ConceptLabError(
                f"{self.path} has dtype = {value!r}, known are {', '.join(DTYPES)}: save its weights as float32."
            )

    def finish(self, harmless: Collection[str] = ()) -> None:
        """Refuse what has been neither read nor is known to leave the function alone."""
        for key, value in self.cfg.items():
            if key not in self.read and key not in harmless and value is not None:
                shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
                raise ConceptLabError(
                    f"{self.path} has the setting {key} = {shown}, which is not known here; if it does not change what "
                    f"the dictionary computes, pass accept=({key!r},) to load_sae."
                )
