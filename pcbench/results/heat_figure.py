"""A figure as a map: x against line, the mean as colour and number, a panel each."""

from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import Any

CELL, MARGIN = (0.62, 0.42), (1.2, 1.3)  # inches


def draw(spec: Mapping[str, Any], drawn: list, figure_class, label: Callable):
    panels = list(dict.fromkeys(p.panel for p in drawn))
    xs = sorted({p.x for p in drawn})
    lines = list(dict.fromkeys(p.line for p in drawn))
    means = [p.mean for p in drawn]
    low, high = min(means), max(means)
    size = (
        len(panels) * CELL[0] * len(xs) + MARGIN[0] + 1,
        CELL[1] * len(lines) + MARGIN[1],
    )
    figure = figure_class(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, panel in zip(axes, panels, strict=True):
        of = {(p.line, p.x): p.mean for p in drawn if p.panel == panel}
        table = [[of.get((line, x), float("nan")) for x in xs] for line in lines]
        image = axis.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for row, line in enumerate(table):
            for column, mean in enumerate(line):
                if mean == mean:
                    dark = high > low and (mean - low) / (high - low) < 0.5
                    colour = "white" if dark else "black"
                    style = {"ha": "center", "va": "center", "fontsize": 7, "color": colour}
                    axis.text(column, row, f"{mean:.3g}", **style)
        axis.set_xticks(range(len(xs)), [f"{x:g}" for x in xs], rotation=45, fontsize=8)
        axis.set_yticks(range(len(lines)), [str(line) for line in lines], fontsize=8)
        axis.set_xlabel(label(spec, spec["x"]))
        if panel is not None:
            axis.set_title(str(panel), fontsize=9)
    axes[0].set_ylabel(", ".join(label(spec, column) for column in spec["line"]))
    figure.colorbar(image, ax=list(axes), label=label(spec, spec["y"][0]))
    figure.suptitle("\n".join(wrap(spec["title"], int(size[0] * 11))), fontsize=10)
    return figure
