"""The look that all figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:  # not in every matplotlib that the course runs on
    from matplotlib.typing import RcKeyType

# colour-blind safe (Okabe and Ito); one meaning each through the whole course
COLORS = {
    "target": "#D55E00",  # the concept that is studied or erased
    "neighbour": "#0072B2",  # its neighbour, which must survive
    "general": "#009E73",  # general knowledge
    "control": "#8A8A8A",  # random vectors, shuffled labels, never-trained models
    "accent": "#CC79A7",
    "second": "#E69F00",
    "ink": "#222222",
}


_STYLE: dict[RcKeyType, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "image.cmap": "viridis",
}


@overload
def new_figure(*, width: int | float = 8.0, height: int | float = 3.4) -> tuple[Figure, Axes]: ...
@overload
def new_figure(
    rows: int,
    cols: int,
    width: int | float = 8.0,
    height: int | float = 3.4,
    *,
    squeeze: Literal[False],
    sharey: bool = False,
) -> tuple[Figure, np.ndarray]: ...
def new_figure(
    rows: int = 1,
    cols: int = 1,
    width: int | float = 8.0,
    height: int | float = 3.4,
    *,
    squeeze: bool = True,
    sharey: bool = False,
) -> tuple[Figure, Axes | np.ndarray]:
    """`plt.subplots` in the course's style; width and height in inches of the whole figure."""
    with plt.rc_context(_STYLE):
        made = plt.subplots(rows, cols, figsize=(width, height), layout="constrained", squeeze=squeeze, sharey=sharey)
        interactive = plt.isinteractive()
    plt.rcParams["interactive"] = interactive  # a notebook's backend turns it on here; undone, later figures vanish
    return made


def finish(ax: Axes, title: str = "", x: str = "", y: str = "", legend: bool = False) -> Axes:
    """Title (the claim, in words), axis labels (with units) and legend of one panel."""
    ax.set_title(plain(title), loc="left", fontweight="bold", fontsize=11)
    ax.set_xlabel(plain(x))
    ax.set_ylabel(plain(y))
    if legend:
        ax.legend(frameon=False, fontsize=9)
    return ax


def figure_of(ax: Axes) -> Figure:
    """The whole figure that a panel is part of."""
    found = ax.get_figure(root=True)
    assert found is not None  # axes that are drawn in have one
    return found


def plain(text: str) -> str:
    """A text as it is: `$` is a token of many models, and for matplotlib the start of a formula that may not end."""
    return text.replace("$", r"\$")


def printable(token: str) -> str:
    """A token with a dot for every character that matplotlib's own fonts lack, as many characters as it has.

    They have Latin, Greek, Cyrillic, punctuation and mathematical signs. Pass what is drawn through `plain`.
    """
    return "".join(c if c.isprintable() and (ord(c) < 0x0530 or 0x1E00 <= ord(c) < 0x2600) else "\u00b7" for c in token)


def described(fig: Figure, alt: str) -> Figure:
    """Show a figure with an alternative text (its claim and main number) for readers who do not see it.

    In a notebook the text lies in the output's metadata, where nbconvert and JupyterLab look for it; the figure is
    closed, so that it is not shown a second time. Elsewhere nothing happens. Returns the figure.
    """
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is not None:
        display(fig, metadata={"image/png": {"alt": alt}})
        plt.close(fig)
    return fig
