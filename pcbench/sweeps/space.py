"""From a search file (conf/tune/NAME.yaml) to a checked space of hyper-parameters and a budget."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, product
from pathlib import Path
from typing import Any

from pcbench.config import Composer, Config, ConfigError, load_target
from pcbench.config.compose import find_yaml, read_yaml
from pcbench.config.errors import nearest
from pcbench.config.schema import VOCABULARY
from pcbench.sweeps.expand import Settings, compose_one, read_overrides

BUDGET = {"trials": 32, "batch": 8, "seeds": 1}  # where neither the file nor the command says
FILE_KEYS = ("where", "search", *BUDGET)
RANGE_KEYS = ("low", "high", "log", "step", "choices", "optional")
SHAPES = "{low, high}, {low, high, log: true}, {low, high, step} or a list of choices"
COMMON = (  # the same for all trials: what they are compared by, and how long they learn
    "seed", "train.epochs", "train.max_steps", "train.eval_every", "train.selection",
    "train.validation_fraction",
)  # fmt: skip
CORNERS = 4096  # combinations of extreme values that are composed before anything runs


@dataclass(frozen=True)
class Search:
    """What is searched and how much; `space`: path → ``{low, high, log}``, ``{low, high, step}``
    or ``{choices}``, in canonical values."""

    name: str
    base: Config
    space: dict[str, dict]
    trials: int
    batch: int  # trials proposed at once
    seeds: int  # runs of each trial

    @property
    def higher_is_better(self) -> bool:
        """Of the task's score."""
        return load_target(self.base["task.target"]).higher_is_better

    def configs(self, settings: Settings, seeds: Iterable[int]) -> list[Config]:
        return [self.base.replace({**settings, "seed": seed}) for seed in seeds]

    @property
    def identity(self) -> dict[str, Any]:
        """Two searches that have this in common have the same proposals."""
        config = {k: v for k, v in self.base.identity.items() if k not in {"seed", *self.space}}
        return {"config": config, "search": self.space, "batch": self.batch, "seeds": self.seeds}


def read_search(
    source: str,
    overrides: Sequence[str] = (),
    trials: int | None = None,
    batch: int | None = None,
    seeds: int | None = None,
) -> Search:
    """`source`: a name under conf/tune or a path to a YAML file. An override fixes a key, also one
    that the file searches. Raises ConfigError unless every corner of the space is a config."""
    path = Path(source) if source.endswith((".yaml", ".yml")) else find_yaml("tune", source)
    content = _read(path)
    where = content.get("where") or {}
    fixed, axes = read_overrides(overrides)
    for (key, *_), _ in axes:
        raise ConfigError(f"{key}: one value fixes a key; what is searched stands in {path}.")
    if "seed" in where | fixed:
        raise ConfigError("seed: a search takes its own; `seeds` says how many runs a trial has.")
    for key in content["search"]:
        if key in where:
            raise ConfigError(f"{path}: {key} stands under where (fixed) and under search.")
    composer = Composer()
    base = compose_one(composer, where | fixed)
    if base["train.validation_fraction"] == 0:
        raise ConfigError(
            "train.validation_fraction=0 leaves nothing to search by: hold out a share such as "
            "train.validation_fraction=0.1."
        )
    space = {}
    for key, spec in content["search"].items():
        if key not in fixed and (dimension := _dimension(composer, base, str(key), spec)):
            space[str(key)] = dimension
    if not space:
        raise ConfigError(f"{path}: nothing is left to search; every key is fixed or absent.")
    for corner in islice(product(*map(_extremes, space.values())), CORNERS):
        base.replace(dict(zip(space, corner, strict=True)))
    asked = {"trials": trials, "batch": batch, "seeds": seeds}
    budget = BUDGET | content | {key: n for key, n in asked.items() if n is not None}
    name = _name(path.stem, fixed, composer, base)
    return Search(name, base, space, **{key: _count(key, budget[key]) for key in BUDGET})


def _read(path: Path) -> dict:
    """The search file, its keys checked."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a search is a mapping with the keys {', '.join(FILE_KEYS)}.")
    for key in content:
        if key not in FILE_KEYS:
            raise ConfigError(f"{path}: '{key}'." + nearest(str(key), FILE_KEYS))
    for key in ("where", "search"):
        if not isinstance(content.get(key) or {}, dict):
            raise ConfigError(f"{path}: {key}: a mapping from keys to values is needed.")
    if not content.get("search"):
        raise ConfigError(f"{path}: search: name at least one key and its values.")
    return content


def _dimension(composer: Composer, base: Config, path: str, spec: Any) -> dict | None:
    """A checked key of the space in canonical values; None for an optional key that the chosen
    algorithm (model, …) does not have."""
    spec = {"choices": spec} if isinstance(spec, list) else spec
    if not isinstance(spec, dict):
        raise ConfigError(f"{path}: expected {SHAPES}, got {spec!r}.")
    for key in spec:
        if key not in RANGE_KEYS:
            raise ConfigError(f"{path}: '{key}'." + nearest(str(key), RANGE_KEYS))
    if composer.is_group(path):
        raise ConfigError(
            f"{path}: choices of a group have different keys and are not searched together; "
            f"launch a search for each ({path}=…)."
        )
    if path in VOCABULARY and path not in base.leaves and spec.get("optional") is True:
        return None
    try:
        leaf = base.leaf(path)
    except ConfigError as error:
        hint = " `optional: true` leaves a key out of a search whose choice does not have it."
        absent = path in VOCABULARY and path not in base.leaves
        raise ConfigError(f"search: {error}{hint if absent else ''}") from None
    if path in COMMON or leaf.kind == "operational":
        raise ConfigError(f"{path}: is the same for all trials; it cannot be searched.")
    given = {key: value for key, value in spec.items() if key != "optional"}
    if "choices" in given:
        choices = given.pop("choices")
        if given or not isinstance(choices, list) or not choices:
            raise ConfigError(f"{path}: choices are a list of values, without a range.")
        return {"choices": [leaf.coerce(value) for value in choices]}
    if not {"low", "high"} <= given.keys():
        raise ConfigError(f"{path}: expected {SHAPES}.")
    low, high = leaf.coerce(given["low"]), leaf.coerce(given["high"])
    if not _is_number(low) or not _is_number(high):
        raise ConfigError(f"{path}: a {leaf.type_name} has no range: list its choices.")
    return {"low": low, "high": high, **_spacing(path, low, high, given)}


def _spacing(path: str, low: float, high: float, given: Mapping) -> dict:
    log, step, whole = given.get("log", False), given.get("step"), isinstance(low, int)
    if not low < high:
        raise ConfigError(f"{path}: low must be below high, got low={low} and high={high}.")
    if not isinstance(log, bool):
        raise ConfigError(f"{path}: log is true or false, got {log!r}.")
    if log and not low > 0:
        raise ConfigError(f"{path}: log: true needs low > 0, got low={low}.")
    if step is None:
        return {"log": log}
    if log:
        raise ConfigError(f"{path}: a step is for a linear range; choose step or log: true.")
    if not _is_number(step) or not step > 0 or (whole and step != int(step)):
        raise ConfigError(f"{path}: step is a positive {'integer' if whole else 'number'}.")
    if (Fraction(str(high)) - Fraction(str(low))) % Fraction(str(step)):
        raise ConfigError(f"{path}: steps of {step} do not lead from {low} to {high}.")
    return {"step": int(step) if whole else float(step)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _extremes(spec: Mapping) -> list:
    return spec["choices"] if "choices" in spec else [spec["low"], spec["high"]]


def _count(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key}: a whole number from 1 is needed, got {value!r}.")
    return value


def _name(stem: str, fixed: Settings, composer: Composer, base: Config) -> str:
    """``digits``; with algorithm=bp and model.width=16, ``digits-bp-model.width-16``: another
    search. What only says how to run is no part of it."""
    parts = [stem]
    for key, value in sorted(fixed.items()):
        if composer.is_group(key):
            parts += [value] if key != "executor" else []
        elif base.leaf(key).kind != "operational":
            parts.append(f"{key}-{value}")
    name = re.sub(r"[^A-Za-z0-9._+]+", "-", "-".join(parts)).strip("-.")
    if len(name) > 100:
        name = f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name
