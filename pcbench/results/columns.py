"""The columns of a row: type, unit, direction, meaning.

Besides these a row holds every leaf of the config under its dotted path (``algorithm.step_size``)
and what its task adds, whose names have no dot. Values that are undefined for a run are null.
"""

import re
from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1  # rises when a column changes its meaning
STATUSES = ("completed", "diverged", "failed")
UNFINISHED = "unfinished"  # of a row without a record: a run that a sweep asks for

Type = Literal["string", "integer", "float", "boolean", "list"]


@dataclass(frozen=True)
class Column:
    type: Type
    meaning: str
    unit: str = ""  # "accuracy": a fraction, shown in percent, that a diverged run has by chance
    higher_is_better: bool | None = None  # null: nothing to rank by


def _string(meaning):
    return Column("string", meaning)


def _integer(meaning, **more):
    return Column("integer", meaning, **more)


def _float(meaning, **more):
    return Column("float", meaning, **more)


def _accuracy(meaning):
    return Column("float", meaning, unit="accuracy", higher_is_better=True)


def _cost(type_, meaning, unit):
    return Column(type_, meaning, unit=unit, higher_is_better=False)


COLUMNS: dict[str, Column] = {
    # identity
    "run_id": _string("hash of the config: all that changes the numbers"),
    "status": _string(f"{', '.join(STATUSES)}; a diverged run had a non-finite loss or state"),
    "sweep": Column("list", "sweeps that the run belongs to"),
    "task": _string("what is learned and how it is scored"),
    "dataset": _string("source of the examples"),
    "model": _string("network"),
    "width": _integer("units of a hidden layer", unit="units"),
    "depth": _integer("weight layers, input and output layer included", unit="layers"),
    "parameterisation": _string("scaling of weights, multipliers and learning rates with size"),
    "algorithm": _string("learning algorithm"),
    "variant": _string("algorithm with its static choices that differ from its defaults"),
    "optimizer": _string("optimiser of the weights"),
    "lr": _float("learning rate of the weights"),
    "seed": _integer("random seed: initial weights, order, augmentation, noise"),
    "epochs": _integer("passes over the training set", unit="epochs"),
    # scores
    "test_accuracy_final": _accuracy("on the test set, after the last epoch"),
    "test_accuracy_at_best_validation": _accuracy(
        "on the test set, at the epoch with the best validation accuracy; null without validation"
    ),
    "validation_accuracy_best": _accuracy("best over epochs, on the validation set"),
    "test_accuracy_best_epoch": _accuracy(
        "best over epochs on the test set itself; only under the protocol best_test_epoch"
    ),
    "test_accuracy_mean": _accuracy("on the test set, mean over the evaluations of the training"),
    "validation_accuracy_mean": _accuracy("the same on the validation set"),
    "test_top5_accuracy_final": _accuracy(
        "share of the test set whose label is among the five largest outputs, of more than ten; "
        "after the last epoch"
    ),
    "test_top5_accuracy_best_epoch": _accuracy(
        "the same, best over epochs; only under the protocol best_test_epoch"
    ),
    "chance": Column("float", "primary score of guessing, as 1 / classes; what a diverged run has"),
    "primary_metric": _string("the column by which the task ranks; null: test accuracy"),
    "primary_higher_is_better": Column("boolean", "direction of primary_metric"),
    # on the fixed probe batch, at the last epoch
    "train_loss": _float(
        "mean output loss; of a generative network, of reconstructions",
        unit="per sample",
        higher_is_better=False,
    ),
    "energy_initial": _float("mean energy before relaxation", unit="per sample"),
    "energy_relaxed": _float("mean energy after relaxation", unit="per sample"),
    "output_energy_ratio": _float(
        "energy of the output layer after relaxation over that before; of pc at equilibrium 1 in "
        "the limit of backpropagation, 0 in that of target propagation (Millidge et al. 2023)"
    ),
    "inference_residual": _float(
        "norm of the energy's gradient in the states, relaxed over initial", higher_is_better=False
    ),
    "target_alignment": _float(
        "cosine of the output's first-order change with the direction to the target",
        higher_is_better=True,
    ),
    "target_alignment_finite": _float(
        "target_alignment with the real weight update", higher_is_better=True
    ),
    "gradient_cosine": _float(
        "cosine of the weight update with its reference: the BP gradient (pc, fenchel_young) or "
        "the implicit gradient (hopfield)",
        higher_is_better=True,
    ),
    "gradient_error": _float(
        "relative distance of the nearest multiple of the update from that reference",
        higher_is_better=False,
    ),
    # the same, as train.theory asks: of the pc energy with precisions 1 under squared error
    "condition_number": _float("of the energy's Hessian in the states, at the forward pass"),
    "rescaling_norm_excess": _float("‖S‖₂ - 1"),
    "target_alignment_bp": _float("closed form for a linear chain under bp, first order"),
    "target_alignment_pc": _float("the same under pc at equilibrium"),
    "rescaling_excess": _float("tr(S)/C - 1, S the rescaling of the output error at equilibrium"),
    "equilibrium_ratio": _float("energy at equilibrium over loss"),
    "depth_over_width": _float("L / (γ₀² N): layers along the skips, width before the output"),
    # cost
    "wall_s": _cost("float", "wall time, compilation included; in a pack, of the pack", "s"),
    "compile_s": _cost("float", "compilation time; in a pack, of the pack", "s"),
    "step_ms": _cost(
        "float", "median time of one training step; in a pack, its share of the pack's step", "ms"
    ),
    "layer_updates": _cost("integer", "updates of one layer's states, over the run", "updates"),
    "weight_updates": _cost("integer", "updates of the weights, over the run", "updates"),
    "flops_per_step": _cost("float", "floating-point operations of one training step", "flop"),
    "parameters": _integer("trained numbers", unit="numbers"),
    # protocol
    "energy": _string("energy of the layer states"),
    "states": _string("pre or post: states before or after the activation"),
    "protocol": _string("what chose the epoch (train.selection)"),
    "stage": _string("tune: a trial of a search, seeds from 1000 up; report or null: what counts"),
    "n_trials": _integer("trials of the search that chose this config", unit="trials"),
    "pack_size": _integer("runs in the same compiled program; compare times only at 1"),
    "pack_mode": _string("how the members of the pack were computed: none, map or vmap"),
    # provenance
    "device": _string("kind of device"),
    "jax_version": _string("version of jax"),
    "git_revision": _string("commit of pcbench's checkout; null where it was installed"),
    "git_dirty": Column("boolean", "the checkout had uncommitted changes"),
    "schema_version": _integer("version of these columns"),
    "started": _string("start of the run, UTC, ISO 8601"),
    "host": _string("name of the machine"),
}


def is_accuracy(name: str) -> bool:
    """Whether it is a fraction, shown in percent, that a diverged run has by chance."""
    return name in COLUMNS and COLUMNS[name].unit == "accuracy"


def score_name(column: str) -> str:
    """``test_accuracy_final``, ``validation_accuracy_best`` → ``accuracy``; others as they are."""
    ends = "final|at_best_validation|best_epoch|best|mean"
    found = re.fullmatch(rf"(?:test|validation)_(\w+)_(?:{ends})", column)
    return found[1] if found else column


def validation_column(primary: str) -> str:
    """What may choose between the configs of a task that ranks by `primary`."""
    return f"validation_{score_name(primary)}_{'mean' if primary.endswith('_mean') else 'best'}"
