"""From a config and what was measured to a row of the results table."""

from collections.abc import Mapping
from typing import Any

from pcbench.config import Config
from pcbench.config.compose import choice_yaml
from pcbench.config.config import flatten
from pcbench.results.columns import COLUMNS, SCHEMA_VERSION, UNFINISHED

TUNING_SEEDS = 1000  # seeds from here on belong to searches; reported runs use those below
SHORT = {"nudging": "nudge"}  # as variants are written in the field


def make_row(
    config: Config, metrics: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Flat: the named columns, null where nothing was measured, and what the task adds."""
    widths = config.get("model.widths")
    row = dict.fromkeys(name for name in COLUMNS if name != "sweep") | {
        "run_id": config.run_id,
        "task": config["task.name"],
        "dataset": config["dataset.name"],
        "model": config["model.name"],
        "width": max(widths) if widths else config.get("model.width"),
        "depth": config.get("model.depth"),
        "parameterisation": config["parameterisation.name"],
        "algorithm": config["algorithm.name"],
        "variant": variant(config),
        "optimizer": config["optimizer.name"],
        "lr": config["optimizer.lr"],
        "seed": config["seed"],
        "epochs": config["train.epochs"],
        "energy": config.get("algorithm.energy"),
        "states": config.get("model.states"),
        "protocol": config["train.selection"],
        "stage": "tune" if config["seed"] >= TUNING_SEEDS else "report",
    }
    row |= {name: provenance[name] for name in row.keys() & provenance.keys()}
    return row | dict(metrics)


def unfinished_row(config: Config) -> dict[str, Any]:
    """As far as it is known of a run that has no record."""
    identity = {"status": UNFINISHED, "schema_version": SCHEMA_VERSION}
    return flatten(config.tree) | make_row(config, identity, {})


def variant(config: Config) -> str:
    """The algorithm and its named choices that differ from its YAML: ``pc[nudge=negative]``."""
    name = config["algorithm.name"]
    defaults = choice_yaml("algorithm", name)
    chosen = {
        SHORT.get(key, key): value
        for key, value in config["algorithm"].items()
        if config.leaves[f"algorithm.{key}"].kind == "static"
        and isinstance(value, str | bool)
        and key in defaults
        and value != defaults[key]
    }
    loss = config.get("task.loss")
    if loss != choice_yaml("task", config["task.name"]).get("loss"):
        chosen["loss"] = loss
    parts = ",".join(f"{key}={value}" for key, value in chosen.items())
    return f"{name}[{parts}]" if parts else name
