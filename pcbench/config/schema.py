"""The vocabulary of configs: every leaf with its type, its kind and its meaning.

A leaf is one of three kinds (design: static structure, dynamic numbers):

- ``static``: shapes the compiled program (sizes, names, switches);
- ``dynamic``: a number that reaches the program as traced data, so that changing it compiles
  nothing and runs that differ only there can be packed;
- ``operational``: says how to run, never what comes out; no part of a run's identity.

A group's YAML (``conf/GROUP/CHOICE.yaml``) decides which leaves a choice has. A leaf that equals
its ``default`` *here* stays out of the identity: a default in this file is the value with which the
leaf was introduced and is never changed; YAML files may choose other values.
A plugin declares leaves of its own in its YAML: ``schema: {damping: dynamic float}``.
"""

import math
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from pcbench.config.errors import ConfigError, nearest

Kind = Literal["static", "dynamic", "operational"]
ALWAYS = object()  # no introduction default: always part of the identity


def _leaf(kind: Kind, default: Any, doc: str, **limits):
    """`limits`: choices, minimum, above, maximum, below."""
    return field(default=default, metadata={"kind": kind, "doc": doc, **limits})


def static(default=ALWAYS, doc="", **limits):
    return _leaf("static", default, doc, **limits)


def dynamic(default=ALWAYS, doc="", **limits):
    return _leaf("dynamic", default, doc, **limits)


def operational(default=None, doc="", **limits):
    return _leaf("operational", default, doc, **limits)


ACTIVATIONS = (
    "identity", "relu", "leaky_relu", "hard_sigmoid", "hard_tanh", "sigmoid", "tanh", "gelu",
    "silu",
)  # fmt: skip
# Optax optimisers that leave a state alone while its gradient is zero (the frontier relies on it)
# and descend the energy only (adamw and lion would decay the states); then those of
# `relaxation/updaters.py` that keep a state where its activation can put it.
OPTIMISERS = ("sgd", "adam", "nadam", "rmsprop", "adagrad", "sign_sgd")
UPDATERS = (*OPTIMISERS, "projected", "mirror")
SOURCE_DOMAINS = (
    "antisparse", "nonnegative_antisparse", "sparse", "nonnegative_sparse", "simplex",
)  # fmt: skip


@dataclass
class Choice:
    """What every choice of a group carries."""

    name: str = static(doc="the choice itself")
    version: int = static(1, "rises when the numbers of this choice change", minimum=1)
    target: str = operational(doc="dotted path of the Python object that implements the choice")


@dataclass
class Algorithm(Choice):
    steps: int = static(doc="relaxation steps T per batch", minimum=0)
    step_size: float = dynamic(doc="step size of the relaxation, per sample", above=0)
    momentum: float = dynamic(doc="momentum of the relaxation", minimum=0, maximum=1)
    step_discount: float | None = dynamic(
        None,
        "factor on the step size whenever the batch's energy does not fall; null: off",
        above=0,
        maximum=1,
    )
    beta: float = dynamic(1.0, "strength of the nudging; 1 clamps the output to the target")
    beta_increment: float = dynamic(0.0, "added to beta each epoch", minimum=0)
    beta_signs: list[float] | None = dynamic(None, "sign of beta per epoch (nudging=centred)")
    nudging: str = static(
        "none",
        "output condition",
        choices=("none", "positive", "negative", "centred", "random"),
    )
    energy: str = static("pc", "energy of the states", choices=("pc", "hopfield", "fenchel_young"))
    updater: str = static(
        "sgd", "optimiser of the states: optax's, or projected or mirror descent", choices=UPDATERS
    )
    schedule: str = static(
        "sync",
        "order of the state updates within a relaxation step",
        choices=("sync", "even_odd", "backward", "forward"),
    )
    start: str = static(
        "feedforward",
        "states before relaxation; previous: of the last batch, persistent: of each sample",
        choices=("feedforward", "zeros", "previous", "persistent"),
    )
    free_steps: int = static(0, "relaxation steps of the free phase (energy=hopfield)", minimum=0)
    eval_steps: int = static(0, "relaxation or retrieval steps before an output is read", minimum=0)
    points: int = static(4, "N: strengths of the nudging on a circle; even", minimum=2)
    warmup: int = static(0, "relaxation steps before the first weight update", minimum=0)
    interval: int = static(1, "relaxation steps from one weight update to the next", minimum=1)
    precisions: list[float] | None = dynamic(
        None, "precision of each layer's energy, input to output; null: all 1", above=0
    )
    target_step: float = dynamic(
        doc="η of target propagation: the output's target is ŷ - η ∂loss/∂ŷ", above=0
    )
    feedback: str = static(
        "learned", "what turns the output's target into hidden ones",
        choices=("learned", "gauss_newton"),
    )  # fmt: skip
    feedback_loss: str = static(
        "reconstruction",
        "the feedback weights reconstruct a layer from the next one, or from the output (drl: "
        "difference reconstruction loss)",
        choices=("reconstruction", "drl"),
    )
    feedback_steps: int = static(
        1, "updates of the feedback weights per batch; 0: they stay as drawn", minimum=0
    )
    feedback_optimizer: str = static(
        "adam", "optimiser of the feedback weights", choices=("sgd", "adam")
    )
    feedback_lr: float = dynamic(doc="learning rate of the feedback weights", minimum=0)
    feedback_noise: float = dynamic(
        doc="standard deviation of the noise that the feedback weights learn from", above=0
    )
    feedback_weight_decay: float = dynamic(
        0.0, "λ: weight decay of the feedback weights, damping of Gauss-Newton targets", minimum=0
    )

    temperature: float = dynamic(
        doc="τ of the Langevin dynamics; 1: samples of the posterior", minimum=0
    )
    output_variance: float = dynamic(
        doc="σ² of an output given its latent states, on the scale of the data", above=0
    )
    generative_weight: float = dynamic(
        doc="weight of the energy of top-down predictions", minimum=0
    )
    discriminative_weight: float = dynamic(
        doc="weight of the energy of bottom-up predictions", minimum=0
    )
    input_error: bool = static(True, "the input nodes of a graph are predicted, too")

    similarity: str = static(
        "manhattan",
        "of a cue to stored patterns; of a distance or divergence, its inverse",
        choices=(
            "euclidean", "manhattan", "dot", "normalised_dot", "cosine", "kl", "reverse_kl",
            "jensen_shannon",
        ),
    )  # fmt: skip
    separation: str = static(
        "max",
        "what makes the best match stand out; polynomial: the tenth power",
        choices=(
            "identity", "log", "sqrt", "square", "cube", "quartic", "polynomial", "softmax", "max",
        ),
    )  # fmt: skip
    separation_strength: float = dynamic(1.0, "inverse temperature of separation=softmax", above=0)
    normalise: bool = static(True, "weights of stored patterns are divided by their sum")
    retrieves: str = static(
        "value", "what a memory of embeddings gives: the stored value, or the embedding, decoded",
        choices=("value", "decoded"),
    )  # fmt: skip
    contrast_temperature: float = dynamic(doc="τ of the contrastive loss", above=0)
    view_shift: float = dynamic(doc="pixels by which a view is shifted at most", minimum=0)
    view_block: float = dynamic(doc="side of the block that is missing of a view", minimum=0)
    view_noise: float = dynamic(doc="standard deviation of a view's noise", minimum=0)

    domain: str = static(doc="the set that the sources are taken to fill", choices=SOURCE_DOMAINS)
    lateral: str = static(
        "normalised", "lateral weights are divided by the outputs' variances, or plain",
        choices=("normalised", "plain"),
    )  # fmt: skip
    lateral_weight: float = dynamic(1.0, "κ of plain lateral weights", minimum=0)
    initial_weight: float = static(1.0, "diagonal of the unmixing matrix at the start", minimum=0)
    initial_noise: float = static(0.01, "deviation of what is added to its elements", minimum=0)
    initial_variance: float = static(0.2, "of the outputs, at the start", above=0)
    prediction_weight: float = dynamic(doc="γ: of the outputs' prediction error", above=0)
    forgetting: float = dynamic(doc="λ of running moments of the outputs", above=0, below=1)
    variance_floor: float = dynamic(1e-5, "added to the outputs' variances", minimum=0)
    step_size_min: float = dynamic(doc="below which step_size / step does not fall", minimum=0)
    tolerance: float = dynamic(
        doc="relative movement of the outputs at which they are at rest", minimum=0
    )
    threshold_rate: float = dynamic(
        0.0, "c: of the threshold that holds outputs in a sparse domain or simplex", minimum=0
    )
    rate: float = dynamic(doc="α: learning rate of the unmixing matrix", above=0)
    rate_time: float = dynamic(doc="τ: samples over which it falls", above=0)
    decay: str = static(
        "inverse", "α / (1 + t/τ), or α / (1 + log(2 + t/τ))", choices=("inverse", "logarithmic")
    )
    contrast: str = static(
        "cube", "contrast function of independent components", choices=("cube", "logcosh", "exp")
    )


@dataclass
class Model(Choice):
    width: int = static(doc="units of a hidden layer", minimum=1)
    depth: int = static(doc="weight layers, input and output layer included", minimum=1)
    widths: list[int] | None = static(
        None, "units of each hidden layer; null: width everywhere", minimum=1
    )
    activation: str = static(doc="activation of the hidden layers", choices=ACTIVATIONS)
    states: str = static("post", "states hold σ(Wh) (post) or Wσ(z) (pre)", choices=("post", "pre"))
    bias: bool = static(True, "biases in every layer")
    channels: int = static(
        128, "channels of the first convolution; those of the others in proportion", minimum=1
    )
    patch: int = static(4, "side of the square patches that an image is cut into", minimum=1)
    heads: int = static(4, "attention heads; they divide the width", minimum=1)
    norm: str = static("layer", "normalisation per token in each block", choices=("layer", "none"))
    causal: bool = static(False, "no token sees those after it, and each has an output of its own")

    maps: list[int] = static(
        doc="feature maps of a convolutional decoder, from its latent images to the largest "
        "hidden ones",
        minimum=1,
    )
    kernel: int = static(doc="side of the kernels of a convolutional decoder", minimum=1)
    latent: int = static(doc="latent states of a generative network", minimum=1)
    prior: str = static(
        "none",
        "energy of the latent states: none, that of N(0, I), or of a learned mean",
        choices=("none", "standard", "learned"),
    )
    topology: str = static(
        "layered", "which nodes of a graph are joined",
        choices=("layered", "full", "sparse", "regions", "cyclic"),
    )  # fmt: skip
    density: float = static(1.0, "share of a sparse graph's connections", above=0, maximum=1)
    regions: int = static(1, "groups that a graph's hidden nodes are divided into", minimum=1)


@dataclass
class Dataset(Choice):
    mean: list[float] = static(doc="subtracted per channel, on the [0, 1] scale of pixels")
    std: list[float] = static(doc="divided by per channel", above=0)
    crop_size: int | None = static(None, "side of the (random) crop; null: none", minimum=1)
    crop_padding: int = static(0, "zero padding before a random crop", minimum=0)
    flip: bool = static(False, "random horizontal flips in training")
    train_size: int | None = static(None, "training examples used; null: all", minimum=1)
    draw: int | None = static(
        None, "of these, how many each seed draws for itself; null: all", minimum=1
    )
    samples: int = static(doc="generated training examples", minimum=1)
    test_samples: int = static(doc="generated test examples", minimum=1)
    noise: float = static(doc="noise of the generated data", minimum=0)
    inputs: int = static(doc="input dimension of the generated data", minimum=1)
    outputs: int = static(doc="classes of the generated data", minimum=2)
    hidden: int = static(doc="width of the generating network", minimum=1)
    domain: str = static(doc="the set that sources fill", choices=SOURCE_DOMAINS)
    sources: int = static(doc="sources of a mixture", minimum=2)
    correlation: float = static(
        doc="of all pairs of sources; of binary sequences b: a bit equals the template's with "
        "probability (1 + b)/2",
        minimum=0,
        maximum=1,
    )
    source: str = static(doc="the dataset whose images make sequences")
    length: int = static(doc="elements of a sequence", minimum=2)
    stride: int = static(doc="characters from one window of a text to the next", minimum=1)
    mirrored: bool = static(doc="the second half of a sequence is its first half backwards")
    side: int = static(doc="pixels of a side of a frame", minimum=1)


@dataclass
class Parameterisation(Choice):
    gamma0: float = dynamic(1.0, "richness γ₀: the output multiplier is divided by it", above=0)
    scale_lr: bool = static(
        True,
        "learning rate, weight decay and Adam's ε by the table of the parameterisation; false: "
        "the same for all parameters",
    )


@dataclass
class Optimizer(Choice):
    lr: float = dynamic(doc="learning rate", minimum=0)
    weight_decay: float = dynamic(0.0, "weight decay (decoupled in adamw)", minimum=0)
    momentum: float = dynamic(doc="momentum of the weights", minimum=0, maximum=1)
    b1: float = dynamic(0.9, "decay of the first moment", minimum=0, below=1)
    b2: float = dynamic(0.999, "decay of the second moment", minimum=0, below=1)
    eps: float = dynamic(1e-8, "added to the root of the second moment", minimum=0)
    schedule: str = static(
        "constant", "learning rate over training", choices=("constant", "warmup_cosine")
    )
    warmup: float = static(0.1, "share of the steps that warm up", minimum=0, maximum=0.9)
    peak: float = static(1.1, "factor on lr after the warm-up", above=0)
    end: float = static(0.1, "factor on lr at the last step", minimum=0)


@dataclass
class Task(Choice):
    loss: str = static("squared_error", "output energy", choices=("squared_error", "cross_entropy"))
    target_min: float = static(0.0, "target of the outputs of other classes", below=1)
    condition: str = static(
        "image", "what is generated from: the image itself, by way of hidden states, or its label",
        choices=("image", "label"),
    )  # fmt: skip
    corruption: str = static(
        "mask",
        "what is done to a stored pattern: Gaussian noise, without or with clipping to [0, 1]; its "
        "last rows, random pixels or a block are missing; a random shift",
        choices=("noise", "clipped_noise", "mask", "pixels", "block", "shift"),
    )
    association: str = static(
        "auto",
        "what a cue retrieves: the pattern itself, or (hetero) the next one of those stored",
        choices=("auto", "hetero"),
    )
    learns_from: str = static(
        "stored",
        "what a rule learns from: the patterns that it is tested on, or the other training "
        "examples; those are stored at the end",
        choices=("stored", "others"),
    )
    clip: bool = static(False, "what is retrieved is cut to [0, 1] before it is scored")
    level: float = dynamic(
        doc="of the corruption: standard deviation, missing share, side of the block or largest "
        "shift in pixels",
        minimum=0,
    )
    threshold: float = dynamic(
        doc="mean squared error per pixel below which a pattern is retrieved", above=0
    )
    mixtures: int = static(doc="linear mixtures of the sources", minimum=1)
    snr: float = dynamic(doc="power of the mixtures over that of their noise, in dB")
    binary: bool = static(False, "elements of sequences are ±1: their signs are recalled")
    context: str = static(
        "causal",
        "what a character is predicted from: those before it, or (masked) those on both sides",
        choices=("causal", "masked"),
    )
    positions: str = static(
        "one", "characters of a window that are predicted", choices=("one", "all")
    )
    interval: int = static(doc="epochs from one change of the labels to the next", minimum=1)
    drifting: int = static(doc="classes whose labels are permuted", minimum=2)
    tasks: int = static(doc="learned in turn, each with its share of the classes", minimum=2)
    following: str = static(
        doc="how classes are dealt to alternating tasks, and which outputs learn: as the paper "
        "describes it, or as its code does it",
        choices=("paper", "code"),
    )


@dataclass
class Slurm:
    partition: str | None = operational(None, "partition; null: the cluster's default")
    account: str | None = operational(None, "account that is charged")
    qos: str | None = operational(None, "quality of service")
    gpus: int = operational(0, "GPUs per job", minimum=0)
    cpus: int = operational(1, "cores per job", minimum=1)
    mem: str | None = operational(None, "memory per job, e.g. 16G")
    time: int = operational(60, "time limit of a job in minutes; it is requeued there", minimum=1)
    setup: list[str] | None = operational(None, "shell lines before the job, e.g. module loads")


@dataclass
class Executor(Choice):
    name: str = operational(doc="the choice itself")
    version: int = operational(doc="of the executor")
    pack_mode: str = operational(
        "auto", "how runs that share a program are packed; auto: measured",
        choices=("auto", "none", "map", "vmap"),
    )  # fmt: skip
    pack_size: int | None = operational(None, "most runs in a pack; null: up to 64", minimum=1)
    workers: int | None = operational(None, "worker processes; null: one a core", minimum=1)
    slurm: Slurm = field(default_factory=Slurm)


@dataclass
class Train:
    epochs: int = static(doc="passes over the training set", minimum=1)
    max_steps: int | None = static(
        None, "stop after so many batches; 0: measure the initial weights", minimum=0
    )
    epoch_steps: int | None = static(
        None,
        "batches of an epoch, each time others, drawn without repeat; null: the whole training set",
        minimum=1,
    )
    batch_size: int = static(doc="samples a batch; the last incomplete batch is dropped", minimum=1)
    eval_every: int = static(1, "epochs between evaluations", minimum=1)
    probe_every: int | None = static(
        None, "epochs between measurements on the probe batch; null: only at the end", minimum=1
    )
    probe_size: int = static(256, "training samples in the probe batch", minimum=1)
    theory: str | None = static(
        None,
        "what the measurements include beside: the condition number of the energy (curvature), "
        "energy over loss and the rescaling of the error (equilibrium), or the closed forms of "
        "target alignment in linear networks (alignment); see metrics/theory",
        choices=("curvature", "equilibrium", "alignment"),
    )
    selection: str = static(
        "validation",
        "what may choose an epoch: the validation set, nothing (final), or the test set as in "
        "the published protocol of that name",
        choices=("validation", "final", "best_test_epoch"),
    )
    validation_fraction: float = static(
        doc="share of the training set held out; 0 only with selection=final or best_test_epoch",
        minimum=0,
        maximum=0.9,
    )
    checkpoint_seconds: float = operational(
        60.0, "seconds between checkpoints, and before the first", minimum=0
    )


@dataclass
class Wandb:
    mode: str = operational(
        "disabled", "mirror finished runs", choices=("disabled", "offline", "online")
    )
    project: str = operational("pcbench", "wandb project")
    entity: str | None = operational(None, "wandb entity")


@dataclass
class Logging:
    wandb: Wandb = field(default_factory=Wandb)


@dataclass
class Root:
    """The whole config."""

    algorithm: Algorithm = field(default_factory=Algorithm)
    model: Model = field(default_factory=Model)
    dataset: Dataset = field(default_factory=Dataset)
    parameterisation: Parameterisation = field(default_factory=Parameterisation)
    optimizer: Optimizer = field(default_factory=Optimizer)
    task: Task = field(default_factory=Task)
    executor: Executor = field(default_factory=Executor)
    train: Train = field(default_factory=Train)
    logging: Logging = field(default_factory=Logging)
    seed: int = dynamic(
        doc="random seed: initial weights, order, augmentation, noise",
        minimum=0,
        maximum=2**32 - 1,
    )
    precision: str = static(
        "float32", "floating point of states and weights; bfloat16: of products only",
        choices=("float32", "float64", "bfloat16"),
    )  # fmt: skip
    matmul_precision: str = static(
        "highest", "precision of float32 products on accelerators (default allows TF32)",
        choices=("highest", "high", "default"),
    )  # fmt: skip


GROUPS = ("algorithm", "model", "dataset", "parameterisation", "optimizer", "task", "executor")


@dataclass(frozen=True)
class Leaf:
    """One place for a value: its dotted path, type and kind."""

    path: str
    type: Any
    kind: Kind
    default: Any = ALWAYS
    doc: str = ""
    choices: tuple | None = None
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None

    @property
    def type_name(self) -> str:
        names = {int: "integer", float: "number", str: "string", bool: "true|false"}
        optional, base, item = _unwrap(self.type)
        name = f"list of {names[item]}s" if item else names[base]
        return name + (" or null" if optional else "")

    def coerce(self, value: Any) -> Any:
        """The canonical value: ``1``, ``1.0`` and ``1e0`` are one number. ConfigError otherwise."""
        optional, base, item = _unwrap(self.type)
        if value is None:
            if not optional:
                raise self._wrong(value)
            return None
        if item:
            if not isinstance(value, list | tuple):
                raise self._wrong(value)
            return [self._limited(self._scalar(v, item)) for v in value]
        return self._limited(self._scalar(value, base))

    def _scalar(self, value: Any, kind: type) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is float and number:
            return float(value) + 0.0  # -0.0 and 0.0 are one number
        if kind is int and number and float(value).is_integer():
            return int(value)
        if kind is bool and isinstance(value, bool):
            return value
        if kind is str and (isinstance(value, str) or number):
            return str(value)
        raise self._wrong(value)

    def _limited(self, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.path}: {value} is not a finite number.")
        if self.choices and value not in self.choices:
            raise ConfigError(
                f"{self.path}: '{value}' is not a choice." + nearest(str(value), self.choices)
            )
        for bound, broken, word in (
            (self.minimum, lambda b: not value >= b, "at least"),
            (self.above, lambda b: not value > b, "above"),
            (self.maximum, lambda b: not value <= b, "at most"),
            (self.below, lambda b: not value < b, "below"),
        ):
            if bound is not None and broken(bound):
                raise ConfigError(
                    f"{self.path}: {value} is out of range; it must be {word} {bound}."
                )
        return value

    def _wrong(self, value: Any) -> ConfigError:
        shown = "null" if value is None else repr(value)
        return ConfigError(f"{self.path}: expected {self.type_name}, got {shown}.")


def _unwrap(annotation: Any) -> tuple[bool, type, type | None]:
    """(may be null, type, item type of a list)."""
    optional = False
    if isinstance(annotation, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        optional, annotation = True, inner[0]
    if typing.get_origin(annotation) is list:
        return optional, list, typing.get_args(annotation)[0]
    return optional, annotation, None


def _walk(node: type, prefix: str) -> dict[str, Leaf]:
    found = {}
    for f in fields(node):
        path = f"{prefix}{f.name}"
        if is_dataclass(f.type):
            found |= _walk(f.type, f"{path}.")
        else:
            found[path] = Leaf(path, f.type, default=f.default, **f.metadata)
    return found


VOCABULARY: dict[str, Leaf] = _walk(Root, "")


def declared_leaf(path: str, declaration: str) -> Leaf:
    """A plugin's own leaf from its YAML: ``dynamic float``, ``static int``, ``static str`` …"""
    kinds, names = (
        ("static", "dynamic", "operational"),
        {t.__name__: t for t in (int, float, str, bool)},
    )
    words = str(declaration).split()
    if words[:1] == ["dynamic"] and words[1:] != ["float"]:
        raise ConfigError(f"schema of {path}: '{declaration}': a dynamic leaf is a float.")
    if len(words) != 2 or words[0] not in kinds or words[1] not in names:
        raise ConfigError(
            f"schema of {path}: '{declaration}' is not '<kind> <type>' with a kind of "
            f"{', '.join(kinds)} and a type of {', '.join(names)}."
        )
    return Leaf(path, names[words[1]], words[0])
