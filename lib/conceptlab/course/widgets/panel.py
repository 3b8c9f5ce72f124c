"""What all widgets share: controls beside a picture or a text that a plain function makes of their values.

The function is called when a control changes, or by a button where it takes long. While it works the panel says so,
with the seconds; an error, of whatever kind, stands in place of the picture, which is gone then; an interruption of the
kernel (the square button) stops it. Nothing is clipped: the function refuses what is out of range.
"""

from __future__ import annotations

import html
import io
import threading
import time
from collections.abc import Callable, Mapping

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ...core import ConceptLabError

Drawn = Figure | str | tuple[Figure, str]  # a picture, text as HTML, or a picture with text below

SHOWN_AFTER = 1.0  # seconds of work before the busy sign counts


class Panel(ipywidgets.VBox):
    """Controls, a line for what is going on, and the result.

    `draw` takes the controls' values by name and returns a figure, or text as HTML. `button`: its caption; the result
    is then made at a click, otherwise at every change.
    """

    last: object = None  # what the last click made, for the next cell; set by a desk

    def __init__(
        self,
        controls: Mapping[str, ipywidgets.Widget],
        draw: Callable[..., Drawn],
        button: str = "",
        start: bool = True,
    ):
        self.controls, self.draw = dict(controls), draw
        self.image, self.text = ipywidgets.Image(format="png"), ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self.button = ipywidgets.Button(description=button, button_style="primary") if button else None
        row = [*self.controls.values(), *([self.button] if self.button else [])]
        flow = ipywidgets.Layout(display="flex", flex_flow="row wrap")
        super().__init__([ipywidgets.Box(row, layout=flow), self.message, self.image, self.text])
        if self.button:
            self.button.on_click(lambda _: self.show())
        else:
            for control in self.controls.values():
                control.observe(lambda _: self.show(), "value")
        self._shown("")
        if start:
            self.show()

    def values(self) -> dict[str, object]:
        """What the controls say now."""
        return {name: control.value for name, control in self.controls.items()}

    def show(self) -> None:
        """Make the result of the controls' values and show it, or say why there is none."""
        done = threading.Event()
        clock = threading.Thread(target=self._count, args=(done, time.monotonic()), daemon=True)
        clock.start()
        try:
            self._shown(self.draw(**self.values()))
            said = ""
        except ConceptLabError as error:
            said = _error(str(error))
        except Exception as error:  # a fault of the course's: said here, for a callback's traceback reaches no reader
            said = _error(f"{type(error).__name__}: {error}")
        except KeyboardInterrupt:
            said = _error("Stopped; nothing was changed. Press again to start anew.")
        finally:
            done.set()
            clock.join()
        if said:
            self._shown("")
        self.message.value = said

    def _shown(self, result: Drawn) -> None:
        """Put picture and text in place; what was there before is gone."""
        if isinstance(result, str):
            picture, text = None, result
        else:
            picture, text = result if isinstance(result, tuple) else (result, "")
        self.image.value = b"" if picture is None else png(picture)
        self.image.layout.display = "none" if picture is None else ""
        self.text.value = text

    def _count(self, done: threading.Event, start: float) -> None:
        while not done.wait(SHOWN_AFTER if time.monotonic() - start < SHOWN_AFTER else 0.5):
            seconds = time.monotonic() - start
            self.message.value = (
                f"<p role='status'>Working, {seconds:.0f} s ... (the kernel's square button stops it)</p>"
            )


def _error(text: str) -> str:
    return f"<p role='alert'><b>{html.escape(text)}</b></p>"


def whole_number(value: int, what: str) -> ipywidgets.IntText:
    """A field for a whole number that clips nothing."""
    return ipywidgets.IntText(value, description=what, continuous_update=False, style={"description_width": "initial"})


def decimal(value: float, what: str) -> ipywidgets.FloatText:
    """A field for a number that clips nothing."""
    field = ipywidgets.FloatText(value, description=what, continuous_update=False)
    field.style.description_width = "initial"
    return field


def words_field(value: str, what: str, placeholder: str) -> ipywidgets.Text:
    """A field for words, with a placeholder that says what to type; read when Enter is pressed."""
    field = ipywidgets.Text(value, description=what, placeholder=placeholder, continuous_update=False)
    field.style.description_width = "initial"
    return field


def png(figure: Figure) -> bytes:
    """A figure as PNG; it is closed afterwards, so that a notebook does not show it a second time."""
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format="png")
    finally:
        plt.close(figure)
    return buffer.getvalue()
