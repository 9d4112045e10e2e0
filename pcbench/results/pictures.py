"""Figures of images: what runs kept of their test examples, such as cues and what they retrieve.

A figure under `conf/figure/` with `kind: images` shows stored arrays instead of columns:

    images    arrays of a run, `NAME/test` each: one below the other
    line      column or columns whose values tell the runs apart: a strip each
    count     how many examples, at most 16; 8 where it does not say

Of runs that share a line the one with the lowest seed is shown. What the images are of is told by
their size: n² numbers are grey, 3n² colour.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from pcbench.config.errors import ConfigError
from pcbench.results.figures import holds, joined, label
from pcbench.results.files import whole_file
from pcbench.results.records import Store

if TYPE_CHECKING:
    import numpy as np


class Strip(NamedTuple):
    line: str
    images: "dict[str, np.ndarray]"  # by array: (count, H, W, C) in [0, 1]


def strips(spec: Mapping[str, Any], store: Store, run_ids: Iterable[str]) -> list[Strip]:
    """What is shown. ConfigError where no run has all the arrays."""
    chosen: dict[Any, tuple[int, str, Mapping]] = {}
    for run_id in run_ids:
        if not store.holds(run_id):
            continue
        row = store.read(run_id).row
        where = {"status": "completed"} | spec["where"]
        if all(holds(row.get(column), wanted) for column, wanted in where.items()):
            line, own = joined(row, spec["line"]), (row["seed"], run_id, row)
            chosen[line] = min(chosen.get(line, own), own, key=lambda entry: entry[0])
    found = []
    for line, (_, run_id, row) in chosen.items():
        stored = [store.arrays(run_id, f"{name}/test") for name in spec["images"]]
        if all(stored):
            vectors = [next(iter(own.values()))[: spec["count"]] for own in stored]
            images = [as_images(own, row) for own in vectors]
            named = dict(zip(spec["images"], images, strict=True))
            found.append(Strip("" if line is None else str(line), named))
    if not found:
        wanted = " and ".join(spec["images"])
        raise ConfigError(f"no run of sweep '{spec['sweep']}' has kept images named {wanted}.")
    return found


def as_images(vectors: "np.ndarray", row: Mapping[str, Any]) -> "np.ndarray":
    """(N, H·W·C) on the scale of a network → (N, H, W, C) as they were, cut to [0, 1]."""
    import numpy as np

    size = vectors.shape[-1]
    channels = next((c for c in (1, 3) if math.isqrt(size // c) ** 2 * c == size), None)
    if channels is None:
        raise ConfigError(f"examples of {size} numbers are no square images, grey or in colour.")
    side = math.isqrt(size // channels)
    images = vectors.reshape(-1, side, side, channels)
    mean, std = (np.asarray(row.get(f"dataset.{key}") or v) for key, v in (("mean", 0), ("std", 1)))
    return np.clip(images * std + mean, 0, 1)


def save(name: str, spec: Mapping[str, Any], drawn: list[Strip], folder: Path) -> list[Path]:
    """NAME.npz with the images, `LINE/ARRAY` each, NAME.png and NAME.pdf under `folder`."""
    import numpy as np
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.npz"]
    arrays = {f"{s.line}/{key}": images for s in drawn for key, images in s.images.items()}
    with whole_file(paths[0]) as file:
        np.savez(file, **arrays)
    figure = draw(spec, drawn, Figure)
    for suffix in ("png", "pdf"):
        paths.append(folder / f"{name}.{suffix}")
        with whole_file(paths[-1]) as file:
            figure.savefig(file, format=suffix, dpi=160)
    return paths


SIDE, LEFT, TITLE, LINE, GAP = 0.55, 0.9, 0.36, 0.25, 0.04  # inches


def draw(spec: Mapping[str, Any], drawn: list[Strip], figure_class):
    """Strip below strip, under the name of its line, each array of it in a row."""
    count = max(len(images) for strip in drawn for images in strip.images.values())
    rows, width = len(spec["images"]), LEFT + SIDE * count + GAP
    title = wrap(spec["title"], int(width * 12))
    top = TITLE + 0.17 * (len(title) - 1)
    height = top + len(drawn) * (LINE + rows * SIDE) + GAP
    figure = figure_class(figsize=(width, height))
    figure.text(0.5, 1 - 0.3 * TITLE / height, "\n".join(title), ha="center", va="top", size=10)
    y = height - top
    for strip in drawn:
        middle = (LEFT + SIDE * count / 2) / width
        figure.text(middle, (y - 0.6 * LINE) / height, strip.line, ha="center", va="center", size=8)
        y -= LINE
        for name, images in strip.images.items():
            y -= SIDE
            text = (LEFT - 0.06) / width, (y + SIDE / 2) / height
            figure.text(*text, label(spec, name), ha="right", va="center", size=8)
            for n, image in enumerate(images):
                place = (LEFT + n * SIDE, y, SIDE - GAP, SIDE - GAP)
                scale = (width, height, width, height)
                axis = figure.add_axes([p / s for p, s in zip(place, scale, strict=True)])
                axis.imshow(image, cmap="gray", vmin=0, vmax=1)
                axis.set_axis_off()
    return figure
