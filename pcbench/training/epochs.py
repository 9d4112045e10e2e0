"""How long a run is. Imports no JAX: a sweep checks it before anything starts."""

from pcbench.config import Config, ConfigError
from pcbench.data.dataset import Facts


def epoch_lengths(config: Config, data: Facts) -> list[int]:
    """Batches of each epoch: all complete ones, or `train.epoch_steps`, until `train.max_steps`;
    none for a run that is measured at its initial weights. Raises ConfigError when there is no
    batch, or no validation set to select on."""
    samples = data.others if config.get("task.learns_from") == "others" else data.samples
    per_epoch = samples // config["train.batch_size"]
    if per_epoch == 0:
        raise ConfigError(
            f"train.batch_size={config['train.batch_size']} is more than the {samples} "
            f"training samples of '{config['dataset.name']}'."
        )
    per_epoch = min(per_epoch, config["train.epoch_steps"] or per_epoch)
    if config["train.selection"] == "validation" and data.held_out == 0:
        raise ConfigError(
            f"train.validation_fraction={config['train.validation_fraction']} holds out no sample "
            f"of '{config['dataset.name']}': raise it, or set train.selection=final."
        )
    total, most = per_epoch * config["train.epochs"], config["train.max_steps"]
    full, rest = divmod(total if most is None else min(total, most), per_epoch)
    return [per_epoch] * full + ([rest] if rest else [])
