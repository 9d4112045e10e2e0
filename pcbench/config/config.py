"""A validated config: canonical leaves, identity, static structure and dynamic numbers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pcbench.config.errors import ConfigError, nearest
from pcbench.config.schema import ALWAYS, GROUPS, VOCABULARY, Leaf, declared_leaf

# Leaves that change nothing at some value of another leaf: path → (that leaf, test of its value).
INERT = {
    "algorithm.momentum": ("algorithm.updater", lambda updater: updater != "sgd"),
    "algorithm.step_size": ("algorithm.updater", lambda updater: updater == "mirror"),
    "algorithm.free_steps": ("algorithm.energy", lambda energy: energy != "hopfield"),
    "algorithm.eval_steps": ("algorithm.energy", lambda energy: energy != "hopfield"),
    "algorithm.separation_strength": ("algorithm.separation", lambda kind: kind != "softmax"),
    "algorithm.normalise": ("algorithm.separation", lambda kind: kind in ("softmax", "max")),
    "optimizer.warmup": ("optimizer.schedule", lambda schedule: schedule == "constant"),
    "optimizer.peak": ("optimizer.schedule", lambda schedule: schedule == "constant"),
    "optimizer.end": ("optimizer.schedule", lambda schedule: schedule == "constant"),
    "model.width": ("model.widths", lambda widths: widths is not None),
    "matmul_precision": ("precision", lambda precision: precision == "bfloat16"),
}


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested mapping → dotted paths. Empty mappings vanish."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict:
    """Dotted paths → nested dict."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _digest(leaves: Mapping[str, Any]) -> str:
    text = json.dumps(leaves, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Config:
    """Canonical leaves by dotted path, and the leaf declarations they were checked against."""

    flat: Mapping[str, Any]
    leaves: Mapping[str, Leaf]

    def __getitem__(self, path: str) -> Any:
        """A leaf (``config["algorithm.steps"]``) or a group as a dict (``config["model"]``)."""
        if path in self.flat:
            return self.flat[path]
        group = {k[len(path) + 1 :]: v for k, v in self.flat.items() if k.startswith(f"{path}.")}
        if not group:
            raise KeyError(path)
        return nest(group)

    def get(self, path: str, default: Any = None) -> Any:
        return self.flat.get(path, default)

    def kind(self, kind: str) -> dict[str, Any]:
        """The leaves of one kind: ``static``, ``dynamic`` or ``operational``."""
        return {p: v for p, v in self.flat.items() if self.leaves[p].kind == kind}

    @property
    def tree(self) -> dict:
        return nest(self.flat)

    def to_tree(self) -> dict:
        """What `build` makes this config from, the declarations of a plugin's leaves included."""
        tree = self.tree
        for path, leaf in self.leaves.items():
            if path not in VOCABULARY:
                group, key = path.split(".")
                declared = tree[group].setdefault("schema", {})
                declared[key] = f"{leaf.kind} {leaf.type.__name__}"
        return tree

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What changes the numbers and is not at the value with which it was introduced."""
        return {
            path: value
            for path, value in self.flat.items()
            if self.leaves[path].kind != "operational"
            and (self.leaves[path].default is ALWAYS or value != self.leaves[path].default)
            and not self._inert(path)
        }

    def _inert(self, path: str) -> bool:
        """Whether another leaf makes this one change nothing."""
        switch, inert = INERT.get(path, (None, None))
        return switch is not None and switch in self.flat and inert(self.flat[switch])

    @cached_property
    def run_id(self) -> str:
        return _digest(self.identity)

    @cached_property
    def static_key(self) -> str:
        """Equal for configs that one compiled program serves (and that may share a pack).

        A dynamic leaf that is null, or a list of another length, is another program.
        """
        shape = {
            path: None if value is None else len(value) if isinstance(value, list) else "number"
            for path, value in self.kind("dynamic").items()
        }
        return _digest({**self.kind("static"), **{f"{p} (dynamic)": s for p, s in shape.items()}})

    def replace(self, changes: Mapping[str, Any]) -> "Config":
        """The config with other values of leaves that it has; ConfigError for any other leaf."""
        flat = dict(self.flat)
        for path, value in changes.items():
            flat[path] = self.leaf(path).coerce(value)
        changed = Config(MappingProxyType(flat), self.leaves)
        check(changed)
        return changed

    def leaf(self, path: str) -> Leaf:
        if path in self.leaves and not _settable(path):
            group = path.split(".")[0]
            raise ConfigError(f"{path} comes with the choice: set {group}=CHOICE.")
        if path in self.leaves:
            return self.leaves[path]
        group = path.split(".")[0]
        if path in VOCABULARY and group in GROUPS:
            choice = self.flat[f"{group}.name"]
            own = (p for p in self.leaves if p.startswith(f"{group}.") and _settable(p))
            raise ConfigError(
                f"{path}: {group} '{choice}' has no such key." + nearest(path, own)
                + " In a sweep over several choices, set it in a block of its own"
                f" (where: {{{group}: …}})."
            )  # fmt: skip
        known = [*filter(_settable, self.leaves), *GROUPS, "preset"]
        raise ConfigError(f"{path}: unknown key." + nearest(path, known))


def _settable(path: str) -> bool:
    return path.rsplit(".", 1)[-1] not in ("name", "version", "target")


def build(tree: Mapping) -> Config:
    """Check a composed tree against the vocabulary and bring it into canonical form."""
    leaves: dict[str, Leaf] = {}
    flat: dict[str, Any] = {}
    tree = {key: value for key, value in tree.items() if value is not None}
    for group in GROUPS:
        own = tree.get(group, {}).pop("schema", None) or {}
        for key, declaration in own.items():
            path = f"{group}.{key}"
            if path in VOCABULARY:
                raise ConfigError(f"schema of {path}: the key is already in the vocabulary.")
            leaves[path] = declared_leaf(path, declaration)
    for path, value in flatten(tree).items():
        leaf = leaves.get(path) or VOCABULARY.get(path)
        if leaf is None:
            raise ConfigError(f"{path}: unknown key." + nearest(path, VOCABULARY))
        leaves[path] = leaf
        flat[path] = leaf.coerce(value)
    config = Config(MappingProxyType(flat), MappingProxyType(leaves))
    check(config)
    return config


def check(config: Config) -> None:
    """What no single leaf can tell; ConfigError says which keys disagree."""
    get = config.get
    held_out, selection = get("train.validation_fraction"), get("train.selection")
    if held_out == 0 and selection == "validation":
        raise ConfigError(
            "train.validation_fraction=0 leaves nothing to select on: set train.selection=final "
            "(nothing is selected), or hold out a share such as train.validation_fraction=0.1."
        )
    scaled = any(get("dataset.mean", ())) or any(s != 1 for s in get("dataset.std", ()))
    if scaled and (get("task.corruption") == "clipped_noise" or get("task.clip")):
        raise ConfigError(
            "task.corruption=clipped_noise and task.clip=true are of pixels in [0, 1]: set "
            "dataset.mean and dataset.std to 0 and 1 in every channel."
        )
    widths, depth = get("model.widths"), get("model.depth")
    if widths is not None and len(widths) != depth - 1:
        raise ConfigError(
            f"model.widths lists {len(widths)} hidden layers, model.depth={depth} (weight layers) "
            f"has {depth - 1}."
        )
    nudging, beta = get("algorithm.nudging"), get("algorithm.beta")
    for key in ("beta", "beta_increment", "beta_signs"):
        path = f"algorithm.{key}"
        if nudging == "none" and path in config.flat and get(path) != VOCABULARY[path].default:
            raise ConfigError(
                f"{path}={get(path)} has no effect with algorithm.nudging=none (the output is "
                "clamped): set algorithm.nudging=positive, negative or centred."
            )
    if beta is not None and beta <= 0:
        raise ConfigError(f"algorithm.beta={beta}: a strength above 0; its sign is the nudging's.")
    away = nudging in ("negative", "centred", "random")
    grows = "algorithm.beta_increment" in config.flat  # the PCX forms: β = 1 is clamping
    if grows and nudging != "none" and beta >= 1:
        raise ConfigError(
            f"algorithm.beta={beta}: nudging needs a strength between 0 and 1, such as "
            "algorithm.beta=0.5 (1 is clamping: algorithm.nudging=none)."
        )
    if away and beta >= 1 and get("task.loss") == "squared_error":
        raise ConfigError(
            f"algorithm.beta={beta} with algorithm.nudging={nudging}: an output pushed away from "
            "its target under squared error has no equilibrium from 1 on; choose a smaller one."
        )
    if grows and nudging != "none" and get("task.loss") != "squared_error":
        raise ConfigError(
            f"algorithm.nudging={nudging} moves the output along ŷ - y, the gradient of "
            "task.loss=squared_error; with cross_entropy it is not defined."
        )
    steps, warmup = get("algorithm.steps"), get("algorithm.warmup", 0)
    if "algorithm.interval" in config.flat and (
        steps <= warmup or (steps - warmup) % get("algorithm.interval")
    ):
        raise ConfigError(
            f"algorithm.steps={steps} leaves {steps - warmup} steps after algorithm.warmup={warmup}"
            f": a positive multiple of algorithm.interval={get('algorithm.interval')} is needed."
        )
    if nudging == "centred" and grows:
        signs, epochs = get("algorithm.beta_signs"), get("train.epochs")
        if signs is not None and (any(s not in (-1.0, 1.0) for s in signs) or not signs):
            raise ConfigError("algorithm.beta_signs: a list of -1 and 1, one per epoch.")
        if signs is not None and epochs is not None and len(signs) < epochs:
            raise ConfigError(
                f"algorithm.beta_signs lists {len(signs)} epochs, train.epochs={epochs}."
            )
