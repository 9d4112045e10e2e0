"""From a config to its learning rule, with network, task, parameterisation and optimiser."""

from typing import Any

from pcbench.algorithms.base import Algorithm, Sizes, Unsupported
from pcbench.config import Config, ConfigError, load_target
from pcbench.data.dataset import Facts
from pcbench.networks.graph import Graph
from pcbench.networks.temporal import Temporal
from pcbench.tasks.task import Task
from pcbench.training.learner import Learner
from pcbench.training.schedules import SCHEDULES


def construct(config: Config, data: Facts, steps: int) -> tuple[Algorithm, Task]:
    """As `assemble`, of any rule and task: the rule may not be able to do what the task asks."""
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
        task = load_target(config["task.target"])(data, **choices("task"))
    except ValueError as error:
        raise ConfigError(
            f"task={config['task.name']} with dataset={config['dataset.name']}: {error}"
        ) from error
    kind = load_target(config["algorithm.target"])
    try:
        network = load_target(config["model.target"])(
            config["model"], task.input_shape, task.outputs
        )
        if not network.factors and kind.learns_by_gradient:
            raise Unsupported(
                "the model has no weights to learn; it is for memories such as "
                "algorithm=hopfield_memory. Choose another one, such as model=mlp."
            )
        if network.generative and not kind.infers:
            raise Unsupported(
                "the model has no input: its latent states must be inferred, which this rule "
                "cannot (pc, ipc and mcpc can). An autoencoder, such as model=mlp, has one."
            )
        if kind.generative and not network.generative:
            raise Unsupported(
                "the rule learns generative networks: choose model=decoder with "
                "model.prior=standard, and task=generation."
            )
        if isinstance(network, Graph) and not kind.graphs:
            raise Unsupported("the rule is for layers: choose algorithm=graph_pc, or model=mlp.")
        precisions = config.get("algorithm.precisions")
        if precisions is not None and len(precisions) != network.layers:
            raise Unsupported(
                f"algorithm.precisions lists {len(precisions)} values, one for each of the "
                f"network's {network.layers} layers (latent states count as one) is needed."
            )
        if network.causal != task.per_element:
            raise Unsupported(
                "outputs at each element of a sequence, by task=language_modelling "
                "task.positions=all, and a network that has them, model=transformer "
                "model.causal=true, need each other."
            )
        if isinstance(network, Temporal) != kind.temporal:
            raise Unsupported("algorithm=tpc and model=temporal need each other.")
        learner = Learner(
            network,
            load_target(config["parameterisation.target"])(**choices("parameterisation")),
            load_target(optimizer["target"]),
            SCHEDULES[optimizer["schedule"]](optimizer, steps),
        )
        rule = kind(
            network,
            task.output_energy,
            learner,
            **choices("algorithm"),
            sizes=Sizes(data.samples, config["train.batch_size"], task.outputs),
        )
    except (Unsupported, ValueError) as error:
        raise ConfigError(
            f"algorithm={config['algorithm.name']} with model={config['model.name']}: {error}"
        ) from error
    return rule, task


def assemble(config: Config, data: Facts, steps: int) -> tuple[Algorithm, Task]:
    """(rule, task) of a config's static leaves; `steps`: all batches of the run. Raises ConfigError
    for choices that do not go together. Compiles nothing."""
    rule, task = construct(config, data, steps)
    if config["train.theory"] and (rule.temporal or not rule.learns_by_gradient):
        raise ConfigError(
            f"train.theory={config['train.theory']} is of networks from an input to an output, "
            f"which algorithm={config['algorithm.name']} has not: set train.theory=null."
        )
    missing = [name for name in task.needs if name not in rule.abilities]
    if missing:
        raise ConfigError(
            f"task={config['task.name']} needs a rule that can {' and '.join(missing)}; "
            f"algorithm={config['algorithm.name']} with model={config['model.name']} cannot."
        )
    return rule, task
