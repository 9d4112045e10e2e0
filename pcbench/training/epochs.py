"""How long a run is. Imports no JAX: a sweep checks it before anything starts."""

from pcbench.config import Config, ConfigError


def epoch_lengths(config: Config, samples: int, held_out: int) -> list[int]:
    """Batches of each epoch: all complete ones, until `train.max_steps`. Raises ConfigError when
    there is no batch, or no validation set to select on."""
    per_epoch = samples // config["train.batch_size"]
    if per_epoch == 0:
        raise ConfigError(
            f"train.batch_size={config['train.batch_size']} is more than the {samples} training "
            f"samples of '{config['dataset.name']}'."
        )
    if config["train.selection"] == "validation" and held_out == 0:
        raise ConfigError(
            f"train.validation_fraction={config['train.validation_fraction']} holds out no sample "
            f"of '{config['dataset.name']}': raise it, or set train.selection=final."
        )
    total = per_epoch * config["train.epochs"]
    full, rest = divmod(min(total, config["train.max_steps"] or total), per_epoch)
    return [per_epoch] * full + ([rest] if rest else [])
