"""What the pictures have in common. Drawn with matplotlib, if it is installed."""

from __future__ import annotations

import os
from typing import Any

HINT = 'pip install matplotlib, or pip install "edgecomp[cli]"'
INK, PALE = "#22303c", "#d5dce2"
COLOURS = ("#9aa7b2", "#2f6db3", "#e8833a", "#3b9c6d", "#8c5fb0", "#c9a227", "#3aa6b9", "#b0506e", "#6b7f2a", "#7a5c43", "#4c4fa3")
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def refuse(path: str) -> str:
    """Why no picture can be drawn into `path`, or "" if it can: matplotlib missing, or a file type that it does not know."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        return f"a picture needs matplotlib ({error}): {HINT}"
    found, known = kind(path), sorted(FigureCanvasBase.get_supported_filetypes())
    return "" if found in known else f"{path}: no picture of type {found!r}, wanted one of {', '.join(known)}"


def kind(path: str) -> str:
    """The file type that a name asks for."""
    return os.path.splitext(path)[1][1:].lower() or "png"
