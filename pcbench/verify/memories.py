"""Universal Hopfield memories: their special cases, and what their similarities are, of pixels and
of embeddings.

The computations are meant for float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import Batch, Sizes, Trained
from pcbench.algorithms.feature_memory import FeatureMemory, contrastive_loss
from pcbench.algorithms.hopfield_memory import HopfieldMemory
from pcbench.memories.similarity import DISTANCES, SIMILARITIES, jensen_shannon
from pcbench.networks.chains import mlp, patterns
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured
from pcbench.verify.problems import ROUNDING, build, jit, largest, relative, weights

MILLIDGE = "Millidge et al. 2022, arXiv 2202.04557"
RAMSAUER = "Ramsauer et al. 2020, arXiv 2008.02217"
HOPFIELD = "Hopfield 1982, PNAS 79(8)"
CHEN = "Chen et al. 2020, arXiv 2002.05709"
SALVATORI = "Salvatori et al. 2024, arXiv 2402.10814"

INPUTS, OUTPUTS, SAMPLES = 5, 12, 9
STRENGTH = 0.7


def filled(seed=0, signed=False, samples=SAMPLES, **choices):
    """(rule, trained, keys, values): a memory that has stored as many patterns as it has places."""
    generator = np.random.default_rng(seed)
    keys = generator.normal(size=(samples, INPUTS))
    values = generator.uniform(-1 if signed else 0, 1, size=(samples, OUTPUTS))
    sizes = Sizes(samples, samples, OUTPUTS)
    rule = build(HopfieldMemory, patterns({}, (INPUTS,), OUTPUTS), sizes=sizes, **choices)
    batch = Batch(jnp.asarray(keys), jnp.asarray(values), jnp.arange(samples), jnp.asarray(0))
    state = jit(lambda b: rule.step(rule.init(jax.random.key(0)), b, {}, None))(batch)
    return rule, Trained((), state.memory), keys, values


def hyper(strength=STRENGTH):
    return {"algorithm": {"separation_strength": jnp.asarray(strength)}}


def recalled(rule, trained, cues, known=False, strength=STRENGTH):
    known = jnp.broadcast_to(jnp.asarray(known), cues.shape)
    numbers = hyper(strength)
    return np.asarray(jit(rule.recall)(trained, None, jnp.asarray(cues), known, numbers, None))


def some_cues(values, seed=3):
    """Stored patterns, changed."""
    noise = np.random.default_rng(seed).uniform(0, 0.4, size=values.shape)
    return np.abs(values) + noise


# --- special cases


@check(source=RAMSAUER, algorithms=["hopfield_memory"], kind="identity")
def softmax_of_dot_products_is_attention() -> Measured:
    """Softmax separation of dot products is attention: values weighted by softmax(β q Kᵀ). Of a
    pattern to itself keys are values; by association they are not."""
    choices = {"similarity": "dot", "separation": "softmax"}
    rule, trained, keys, values = filled(signed=True, **choices)

    def attention(queries, keys):
        weights = np.exp(STRENGTH * queries @ keys.T)
        return weights / weights.sum(-1, keepdims=True) @ values

    cues, inputs = some_cues(values), keys[:4] + 0.3
    ours = [recalled(rule, trained, cues), jit(rule.associate)(trained, inputs, hyper())]
    return Measured(relative(ours, [attention(cues, values), attention(inputs, keys)]), ROUNDING)


@check(source=HOPFIELD, algorithms=["hopfield_memory"], kind="identity")
def dot_products_alone_are_a_hebbian_network() -> Measured:
    """Without separation or normalisation the memory is linear: its matrix is MᵀM, the sum of the
    patterns' outer products."""
    choices = {"similarity": "dot", "separation": "identity", "normalise": False}
    rule, trained, _, values = filled(signed=True, **choices)
    hebbian = sum(np.outer(m, m) for m in values)
    cues = some_cues(values)
    return Measured(relative(recalled(rule, trained, cues), cues @ hebbian), ROUNDING)


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="identity",
       cases=[(name,) for name in SIMILARITIES])  # fmt: skip
def max_retrieves_the_most_similar_pattern(name) -> Measured:
    """Max separation gives the nearest neighbour under the similarity, bit for bit; softmax goes to
    it as its strength grows."""
    rule, trained, _, values = filled(similarity=name, separation="max")
    cues = some_cues(values[::-1])
    scores = np.stack([[_score(name, q, m) for m in values] for q in cues])
    expected = values[scores.argmax(1)]
    gap = np.diff(np.sort(scores, 1)[:, -2:]).min()
    sharp = filled(similarity=name, separation="softmax")[0]
    softened = relative(recalled(sharp, trained, cues, strength=40 / gap), expected)
    exact = np.array_equal(recalled(rule, trained, cues), expected)
    return Measured(softened if exact else np.inf, ROUNDING)


def _score(name: str, q, m) -> float:
    """The similarity of two vectors, by its definition."""
    if name in ("dot", "cosine"):
        return q @ m / (1 if name == "dot" else np.sqrt((q @ q) * (m @ m)))
    if name == "normalised_dot":
        return (q / q.sum()) @ (m / m.sum())
    if name in ("euclidean", "manhattan"):
        return 1 / np.sum(np.abs(q - m) ** (2 if name == "euclidean" else 1))
    q, m = (0.999 * v / v.sum() + 0.001 / len(v) for v in (q, m))
    kl = lambda a, b: np.sum(a * np.log(a / b))  # noqa: E731
    half = (q + m) / 2
    return (
        1
        / {
            "kl": kl(m, q),
            "reverse_kl": kl(q, m),
            "jensen_shannon": (kl(q, half) + kl(m, half)) / 2,
        }[name]
    )


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="identity",
       cases=[(name,) for name in DISTANCES])  # fmt: skip
def a_stored_pattern_is_its_own_best_match(name) -> Measured:
    """Under a distance a stored pattern retrieves itself in one shot, exactly."""
    rule, trained, _, values = filled(similarity=name, separation="max")
    return Measured(largest(recalled(rule, trained, values) - values), 0)


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="identity",
       cases=[(name,) for name in DISTANCES])  # fmt: skip
def a_stored_cue_retrieves_its_pair(name) -> Measured:
    """By association, too: under a distance a stored input retrieves the value that was stored with
    it, exactly."""
    rule, trained, keys, values = filled(similarity=name, separation="max")
    keys = jnp.abs(keys)
    trained = trained._replace(memory=trained.memory._replace(keys=keys))
    found = jit(rule.associate)(trained, keys, hyper())
    return Measured(largest(np.asarray(found) - values), 0)


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="identity",
       cases=[("square",), ("cube",), ("quartic",), ("polynomial",)])  # fmt: skip
def normalised_powers_are_weighted_means(name) -> Measured:
    """The patterns' weights are s^n/Σs^n over those that are stored. The tenth power of an exact
    match, 1e120, included; ε next to the distances of the others is the error."""
    power = {"square": 2, "cube": 3, "quartic": 4, "polynomial": 10}[name]
    rule, trained, _, values = filled(similarity="manhattan", separation=name)
    cues = some_cues(values)
    stored = np.arange(SAMPLES) < SAMPLES - 3
    part = trained._replace(memory=trained.memory._replace(stored=jnp.asarray(stored)))
    weights = np.abs(cues[:, None] - values[stored]).sum(-1) ** -float(power)
    expected = weights / weights.sum(1, keepdims=True) @ values[stored]
    itself = recalled(rule, trained, values) - values
    return Measured(max(relative(recalled(rule, part, cues), expected), largest(itself)), 1e-11)


# --- retrieval


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="identity")
def steps_retrieve_from_what_was_retrieved() -> Measured:
    """`eval_steps` n is n retrievals, each with the known elements put back; these end as given."""
    choices = {"similarity": "dot", "separation": "softmax"}
    once, trained, _, values = filled(**choices)
    thrice = filled(eval_steps=3, **choices)[0]
    known = np.arange(OUTPUTS) < OUTPUTS // 2
    cues = np.where(known, values, 0)
    expected = cues
    for _ in range(3):
        expected = recalled(once, trained, expected, known)
    found = recalled(thrice, trained, cues, known)
    kept = largest(found[:, known] - values[:, known])
    return Measured(max(relative(found, expected), kept), ROUNDING)


@check(source="the definition of a memory", algorithms=["hopfield_memory"], kind="identity",
       cases=[(name,) for name in ("identity", "log", "softmax", "max")])  # fmt: skip
def places_without_a_pattern_do_not_count(name) -> Measured:
    """A memory with empty places retrieves what one without them does; an empty one nothing."""
    choices = {"similarity": "euclidean", "separation": name, "normalise": name != "log"}
    rule, trained, _, values = filled(**choices)
    cues = np.full_like(values, 0.01)  # nearest to an empty place
    memory = jax.tree.map(lambda a: jnp.concatenate([a, jnp.zeros_like(a)]), trained.memory)
    found = recalled(rule, trained._replace(memory=memory), cues)
    nothing = trained._replace(memory=jax.tree.map(jnp.zeros_like, memory))
    empty = largest(recalled(rule, nothing, cues))
    return Measured(max(relative(found, recalled(rule, trained, cues)), empty), ROUNDING)


# --- similarities


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="identity")
def cosine_does_not_see_the_scale_of_a_pattern() -> Measured:
    """Every pattern times a number of its own: cosine similarities stay, dot products are those
    times the numbers. (Over the norm of the whole memory, cosine would choose as dot does.)"""
    _, _, _, values = filled(signed=True)
    cues, factors = some_cues(values), np.linspace(0.1, 5, SAMPLES)
    scaled = factors[:, None] * values
    found = [SIMILARITIES[n](cues, scaled) for n in ("cosine", "dot")]
    expected = [SIMILARITIES["cosine"](cues, values), SIMILARITIES["dot"](cues, values) * factors]
    return Measured(relative(found, expected), ROUNDING)


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="bound")
def jensen_shannon_is_symmetric_and_at_most_log_2() -> Measured:
    """JS(q, m) = JS(m, q) ≤ log 2, which patterns without a common element come near to. Measured:
    the difference, or what exceeds log 2."""
    values = np.abs(filled()[-1])
    apart = np.kron(np.eye(2), np.ones(OUTPUTS // 2))
    pairs = np.concatenate([values, apart, np.eye(OUTPUTS)])
    found = np.asarray(jensen_shannon(jnp.asarray(pairs), jnp.asarray(pairs)))
    excess = max(0.0, found.max() - np.log(2), 0.98 * np.log(2) - found[SAMPLES, SAMPLES + 1])
    return Measured(max(largest(found - found.T), excess, -found.min()), 1e-15)


@check(source=MILLIDGE, algorithms=["hopfield_memory"], kind="bound",
       cases=[(name,) for name in DISTANCES])  # fmt: skip
def similarity_falls_with_the_distance(name) -> Measured:
    """From a cue to another pattern, in equal steps, similarity falls all the way. Measured: the
    largest rise from one step to the next."""
    cue, other = np.abs(filled()[-1])[:2]
    way = np.linspace(0, 1, 20)[:, None]
    scores = SIMILARITIES[name](jnp.asarray(cue[None]), jnp.asarray(cue + way * (other - cue)))
    return Measured(max(0.0, float(np.diff(np.asarray(scores)[0]).max())), 0)


# --- embeddings


@check(source=CHEN, algorithms=["feature_memory"], kind="identity")
def contrast_is_of_each_view_with_the_other_of_its_image() -> Measured:
    """The contrastive loss, against its definition written out for each of 2B views."""
    embeddings = np.random.default_rng(0).normal(size=(8, 3))
    z = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    losses = []
    for i in range(8):
        scores = {k: np.exp(z[i] @ z[k] / 0.3) for k in range(8) if k != i}
        losses.append(-np.log(scores[(i + 4) % 8] / sum(scores.values())))
    found = contrastive_loss(jnp.asarray(embeddings), jnp.asarray(0.3))
    return Measured(relative(found, np.mean(losses)), ROUNDING)


def feature_memory(**choices):
    """(rule, its weights, images (5, 4, 4, 1), hyper): 16-6-3-6-16 with the embedding at 3."""
    model = {"depth": 4, "widths": [6, 3, 6], "activation": "tanh", "states": "pre", "bias": True}
    rule = build(FeatureMemory, mlp(model, (4, 4, 1), 16), **choices)
    numbers = {"contrast_temperature": 0.1, "view_shift": 1, "view_block": 2, "view_noise": 0.1}
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 4, 4, 1)))
    numbers = jax.tree.map(jnp.asarray, numbers | {"separation_strength": STRENGTH})
    return rule, weights(rule.network), images, {"algorithm": numbers}


@check(source=SALVATORI, algorithms=["feature_memory"], kind="identity")
def the_encoder_learns_by_contrast_alone() -> Measured:
    """Other targets change the gradient of the decoder, never that of the encoder."""
    rule, own, images, numbers = feature_memory()

    def gradient(target):
        batch = Batch(images, target, jnp.arange(5), jnp.asarray(0))
        return rule.gradient(own, (), batch, numbers, jax.random.key(0))[0]

    gradient = jit(gradient)
    one, other = gradient(jnp.zeros((5, 16))), gradient(jnp.ones((5, 16)))
    place = rule.place + 1
    moved = relative(other[place:], one[place:]) > 0.1 and largest(one[:place]) > 0.1
    return Measured(relative(other[:place], one[:place]) if moved else np.inf, ROUNDING)


@check(source=SALVATORI, algorithms=["feature_memory"], kind="identity",
       cases=[("value",), ("decoded",)])  # fmt: skip
def a_stored_image_is_retrieved_by_its_embedding(name) -> Measured:
    """A cue that is stored retrieves its own value; decoded, the network's own output for it,
    whatever is stored beside."""
    rule, own, images, numbers = feature_memory(retrieves=name, similarity="euclidean")
    values = images.reshape(5, -1)

    def found():
        trained = Trained(own, rule.store(own, images, values))
        return rule.recall(trained, images, values, jnp.zeros((), bool), numbers, None)

    expected = values if name == "value" else rule.predict(own, images, numbers)
    return Measured(relative(jit(found)(), expected), ROUNDING)
