"""The errors of the library."""


class ConceptLabError(RuntimeError):
    """An error with a message that says what was wrong and what to do.

    A notebook shows the sentence alone: IPython asks an exception for its own traceback. `%debug` still works.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class NotPossible(ConceptLabError):
    """A result, not a fault: what was asked for cannot be done here (no feature fires on the concept, no translation).

    The only error that a long experiment writes into its table; every other one stops it.
    """
