"""The picture of `edgecomp inspect --plot`: which layers of a model file take its bytes, and in which form."""

from __future__ import annotations

import os
import re
from typing import Any

from edgecomp.measure.picture import COLOURS, INK, PALE, STYLE
from edgecomp.measure.picture import kind as file_type

MOST = 40
"""Bars; what comes after the largest ones is one more."""


def layer_of(name: str) -> str:
    """The group that a tensor is drawn with: its name up to the last number between dots or slashes, else without its last part."""
    numbered = re.match(r"(.*?(?:^|[./_])\d+)(?=[./_]|$)", name)
    return numbered[1] if numbered else re.split(r"[./](?=[^./]*$)", name)[0]


def draw(found: dict[str, Any], path: str) -> None:
    """Draws what `edgecomp.inspect` has found; the picture's type by the file's name."""
    import matplotlib
    from matplotlib.figure import Figure

    sizes: dict[str, dict[str, int]] = {}
    for name, t in found["tensors"].items():
        kind = t["kind"] if t["kind"] != "array" else t["dtype"]
        of_layer = sizes.setdefault(layer_of(name), {})
        of_layer[kind] = of_layer.get(kind, 0) + t["bytes"]
    layers = sorted(sizes, key=lambda layer: -sum(sizes[layer].values()))
    kept = [layer for layer in sizes if layer in set(layers[:MOST])]  # in the file's order
    for layer in layers[MOST:]:
        other = sizes.setdefault(f"{len(layers) - MOST} others", {})
        for kind, size in sizes[layer].items():
            other[kind] = other.get(kind, 0) + size
    kept += [f"{len(layers) - MOST} others"] if len(layers) > MOST else []
    kinds = list(dict.fromkeys(kind for layer in kept for kind in sizes[layer]))

    with matplotlib.rc_context(STYLE):
        figure: Any = Figure(figsize=(10, 1.6 + 0.26 * max(len(kept), 3)), dpi=130, layout="constrained", facecolor="white")
        axes = figure.subplots()
        left = [0.0] * len(kept)
        for i, kind in enumerate(kinds):
            width = [sizes[layer].get(kind, 0) / 1e6 for layer in kept]
            axes.barh(range(len(kept)), width, 0.76, left, color=COLOURS[i % len(COLOURS)], label=kind)
            left = [a + b for a, b in zip(left, width, strict=True)]
        for place, end in enumerate(left):
            text = f"{end:.3g} MB"
            axes.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
        axes.set_yticks(range(len(kept)), [layer if len(layer) <= 40 else f"...{layer[-37:]}" for layer in kept], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.12 * max(left, default=1) or 1)
        axes.invert_yaxis()
        axes.set_axisbelow(True)
        axes.grid(axis="x", color=PALE, lw=0.6)
        axes.set_xlabel("MB")
        axes.set_title(f"{os.path.basename(found['path'])}: {found['bytes'] / 1e6:.4g} MB by layer and kind", parse_math=False)
        if kinds:
            axes.legend(frameon=False, loc="lower right")
        figure.savefig(path, format=file_type(path))
