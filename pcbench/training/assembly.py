"""From a config to its learning rule, with network, task, parameterisation and optimiser."""

from typing import Any

from pcbench.algorithms.base import Algorithm, Sizes, Unsupported
from pcbench.config import Config, ConfigError, load_target
from pcbench.data.dataset import Facts
from pcbench.networks.graph import Graph
from pcbench.tasks.task import Task
from pcbench.training.learner import Learner
from pcbench.training.schedules import SCHEDULES


def assemble(config: Config, data: Facts, steps: int) -> tuple[Algorithm, Task]:
    """(rule, task) of a config's static leaves; `steps`: all batches of the run. Raises ConfigError
    for choices that do not go together. Compiles nothing."""
    try:
        task = load_target(config["task.target"])(data, config["task.loss"])
    except ValueError as error:
        raise ConfigError(
            f"task={config['task.name']} with dataset={config['dataset.name']}: {error}"
        ) from error
    optimizer = config["optimizer"]
    kinds = {path: leaf.kind for path, leaf in config.leaves.items()}

    def choices(group: str) -> dict[str, Any]:
        """What shapes the program: static leaves."""
        return {
            key: value
            for key, value in config[group].items()
            if kinds[f"{group}.{key}"] == "static" and key not in ("name", "version")
        }

    try:
        network = load_target(config["model.target"])(config["model"], data.shape, task.outputs)
        learner = Learner(
            network,
            load_target(config["parameterisation.target"])(**choices("parameterisation")),
            load_target(optimizer["target"]),
            SCHEDULES[optimizer["schedule"]](optimizer, steps),
        )
        rule_type = load_target(config["algorithm.target"])
        if isinstance(network, Graph) and not rule_type.graphs:
            raise Unsupported("the rule is for layers: choose algorithm=graph_pc, or model=mlp.")
        rule = rule_type(
            network,
            task.output_energy,
            learner,
            **choices("algorithm"),
            sizes=Sizes(data.samples, config["train.batch_size"]),
        )
    except (Unsupported, ValueError) as error:
        raise ConfigError(
            f"algorithm={config['algorithm.name']} with model={config['model.name']}: {error}"
        ) from error
    missing = [name for name in task.needs if name not in rule.abilities]
    if missing:
        raise ConfigError(
            f"task={config['task.name']} needs a rule that can {' and '.join(missing)}; "
            f"algorithm={config['algorithm.name']} with model={config['model.name']} cannot."
        )
    return rule, task
