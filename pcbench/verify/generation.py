"""Inference, recall and sampling in generative networks, against linear Gaussian models.

The decoder y = Wh + N(0, I) with a prior h ~ N(0, I) has the posterior N(SWᵀy, S), where
S = (I + WᵀW)⁻¹; without a prior, h is the least-squares solution.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pcbench.algorithms.base import Sizes, Trained
from pcbench.algorithms.ipc import IPC
from pcbench.algorithms.mcpc import MCPC
from pcbench.algorithms.pc import PC
from pcbench.algorithms.vae import VAE, kl_divergence
from pcbench.networks.decoder import decoder
from pcbench.verify.checks import check
from pcbench.verify.measured import Measured
from pcbench.verify.problems import ROUNDING, as_batch, build, hyper, jit, relative, weights

OLIVIERS = "Oliviers, Bogacz & Meulemans 2024, PLOS Computational Biology"
SALVATORI = "Salvatori et al. 2021, arXiv 2109.08063"
KINGMA = "Kingma & Welling 2013, arXiv 1312.6114"
LINEAR = {
    "depth": 1, "widths": None, "width": 1, "activation": "identity", "states": "post",
    "bias": False,
}  # fmt: skip
STEPS = 3000  # of relaxation, to rounding
CHAINS = 40_000
# Five standard errors of a variance that is estimated from so many samples.
STATISTICAL = 5 * np.sqrt(2 / CHAINS)


def linear_decoder(prior: str, latent=3, outputs=6):
    """(network, W (outputs, latent), its weights, targets (4, outputs))."""
    net = decoder(LINEAR | {"latent": latent, "prior": prior}, (), outputs)
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(outputs, latent)) / np.sqrt(latent)
    return net, matrix, ({}, {"W": jnp.asarray(matrix.T)}), generator.normal(size=(4, outputs))


def settled(rule, params, y, known, numbers, key=None) -> list[np.ndarray]:
    """All states after relaxation."""
    x = jnp.zeros((len(y), 1))
    found = jit(lambda p, v, h, k: rule.settle(p, x, v, known, h, k))(params, y, numbers, key)
    return [np.asarray(h) for h in found]


@check(
    source=SALVATORI, algorithms=["pc", "ipc"], kind="identity",
    cases=[("pc", "none"), ("pc", "standard"), ("ipc", "none"), ("ipc", "standard")],
)  # fmt: skip
def latent_states_relax_to_the_most_likely_ones(rule, prior) -> Measured:
    """Of a linear decoder, h = (WᵀW + π)⁻¹Wᵀy, with π the precision of the prior."""
    net, matrix, params, y = linear_decoder(prior)
    made = build({"pc": PC, "ipc": IPC}[rule], net, steps=STEPS, start="zeros")
    latent = settled(made, params, jnp.asarray(y), True, hyper(momentum=0.5))[0]
    square = matrix.T @ matrix + (prior == "standard") * np.eye(matrix.shape[1])
    return Measured(relative(latent, np.linalg.solve(square, matrix.T @ y.T).T), ROUNDING)


@check(source=SALVATORI, algorithms=["pc"], kind="identity")
def recall_fills_in_what_the_known_part_says() -> Measured:
    """Of a linear decoder without a prior, the unknown outputs are W_u W_k⁺ y_k, and the known ones
    stay."""
    net, matrix, params, y = linear_decoder("none")
    known = np.arange(6) < 4
    rule = build(PC, net, steps=STEPS, start="zeros")
    mask = jnp.broadcast_to(jnp.asarray(known), y.shape)
    output = settled(rule, params, jnp.asarray(y), mask, hyper(momentum=0.7))[-1]
    filled = (matrix[~known] @ np.linalg.pinv(matrix[known]) @ y[:, known].T).T
    expected = np.where(known, y, 0)
    expected[:, ~known] = filled
    return Measured(relative(output, expected), 1e-9)


@check(source=SALVATORI, algorithms=["pc"], kind="identity")
def persistent_states_go_on_where_they_were() -> Measured:
    """With weights that stay, relaxing the same samples twice for T steps is relaxing them once
    for 2T."""
    net, _, _, y = linear_decoder("none")
    params = weights(net)
    data, numbers = as_batch(np.zeros((4, 1)), y), hyper(lr=0.0)
    states = {}
    for start, steps, times in (("persistent", 7, 2), ("zeros", 14, 1)):
        rule = build(PC, net, steps=steps, start=start, sizes=Sizes(4, 4))
        memory = rule.memory(jax.random.key(0))
        gradient = jit(lambda p, m, b, h, rule=rule: rule.gradient(p, m, b, h, None, measure=True))
        for _ in range(times):
            _, memory, info = gradient(params, memory, data, numbers)
        states[start] = info.states
    return Measured(relative(states["persistent"], states["zeros"]), ROUNDING)


@check(source=OLIVIERS, algorithms=["mcpc"], kind="bound")
def langevin_states_are_samples_of_the_posterior() -> Measured:
    """Of a linear Gaussian decoder: the mean is SWᵀy, and the covariance that of the dynamics with
    steps of size γ, which has 1/(λ(1 - γλ/2)) for every eigenvalue λ of S⁻¹ and tends to S."""
    net, matrix, params, y = linear_decoder("standard")
    gamma = 0.1
    rule = build(MCPC, net, steps=150, start="zeros")
    many = jnp.broadcast_to(jnp.asarray(y[:1]), (CHAINS, y.shape[1]))
    numbers = hyper(step_size=gamma, temperature=1.0)
    latent = settled(rule, params, many, True, numbers, jax.random.key(1))[0]
    eigenvalues, vectors = np.linalg.eigh(np.eye(3) + matrix.T @ matrix)
    variances = 1 / (eigenvalues * (1 - gamma * eigenvalues / 2))
    mean = np.linalg.solve(np.eye(3) + matrix.T @ matrix, matrix.T @ y[0])
    along = (latent - mean) @ vectors
    drift = np.abs(along.mean(0)) / np.sqrt(variances)  # of standard error 1/√CHAINS
    spread = np.abs(along.var(0) / variances - 1)
    return Measured(float(max(drift.max(), spread.max())), STATISTICAL)


@check(source=OLIVIERS, algorithms=["pc", "mcpc"], kind="bound", cases=[("pc",), ("mcpc",)])
def samples_have_the_covariance_of_the_model(rule) -> Measured:
    """WWᵀ + I of a linear Gaussian decoder: drawn layer by layer, or by Langevin dynamics of all
    states (with small steps)."""
    net, matrix, params, _ = linear_decoder("standard", latent=2, outputs=3)
    made = build({"pc": PC, "mcpc": MCPC}[rule], net, steps=1000, start="zeros")
    numbers = hyper(step_size=0.01, temperature=1.0)
    drawn = jit(lambda p, h, k: made.sample(Trained(p, ()), CHAINS // 9, h, k))
    found = np.asarray(drawn(params, numbers, jax.random.key(2)))
    covariance = matrix @ matrix.T + np.eye(3)
    error = np.abs(np.cov(found.T) - covariance).max() / np.abs(covariance).max()
    return Measured(float(error), 3 * STATISTICAL + 0.02)


# --- the variational autoencoder


@check(source=KINGMA, algorithms=["vae"], kind="identity")
def the_divergence_of_gaussians_has_a_closed_form() -> Measured:
    """KL(N(m, s²) ‖ N(0, 1)) = ∫ q log q/p, by Gauss-Hermite quadrature, which is exact: log q/p is
    of the second degree."""
    mean, log_variance = np.random.default_rng(0).normal(size=(2, 5, 3))
    points, masses = np.polynomial.hermite_e.hermegauss(4)
    z = mean[..., None] + np.exp(log_variance / 2)[..., None] * points
    log_ratio = (z**2 - points**2 - log_variance[..., None]) / 2
    expected = np.sum(log_ratio * masses, (1, 2)) / np.sqrt(2 * np.pi)
    found = jit(kl_divergence)(jnp.asarray(mean), jnp.asarray(log_variance))
    return Measured(relative(found, expected), ROUNDING)


@check(source=KINGMA, algorithms=["vae"], kind="identity", cases=[("standard",), ("learned",)])
def with_the_posterior_as_encoder_the_bound_is_the_log_likelihood(prior) -> Measured:
    """Of a linear Gaussian model y ~ N(Wz, σ²), z ~ N(b, I) with orthogonal columns of W, so that
    the posterior has independent components: log N(y; Wb, WWᵀ + σ²). The expectation of a quadratic
    in D variables is its mean over ε = ±√D e_j."""
    latent, outputs, variance = 3, 6, 0.3
    model = LINEAR | {"latent": latent, "bias": True, "prior": prior}
    rule = build(VAE, decoder(model, (), outputs))
    generator = np.random.default_rng(1)
    matrix = np.linalg.qr(generator.normal(size=(outputs, latent)))[0] * [0.5, 1.0, 2.0]
    b = generator.normal(size=latent) * (prior == "learned")
    own = ({"b": b} if prior == "learned" else {}, {"W": matrix.T, "b": np.zeros(outputs)})
    s2 = 1 / (1 + np.sum(matrix**2, 0) / variance)
    gain = matrix * s2 / variance  # posterior mean: b + (y - Wb) gain
    encoder = ({
        "W": np.concatenate([gain, np.zeros_like(gain)], 1),
        "b": np.concatenate([b - b @ matrix.T @ gain, np.log(s2)]),
    },)  # fmt: skip
    y = generator.normal(size=(4, outputs))
    bound = jit(lambda *a: sum(rule.bound(*a)))
    numbers = hyper(output_variance=variance)
    signs = np.sqrt(latent) * np.concatenate([np.eye(latent), -np.eye(latent)])
    found = [bound(own, encoder, y, np.tile(e, (4, 1)), numbers) for e in signs]
    covariance = matrix @ matrix.T + variance * np.eye(outputs)
    rest = y - b @ matrix.T
    squares = np.sum(rest * np.linalg.solve(covariance, rest.T).T, -1)
    likelihood = -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])
    return Measured(relative(-np.mean(found, 0), likelihood), ROUNDING)


@check(source=KINGMA, algorithms=["vae"], kind="bound")
def samples_of_the_autoencoder_have_the_covariance_of_its_model() -> Measured:
    """WWᵀ + σ² of a linear Gaussian decoder."""
    net, matrix, params, _ = linear_decoder("standard", latent=2, outputs=3)
    rule, numbers = build(VAE, net), hyper(output_variance=0.5)
    drawn = jit(lambda p, h, k: rule.sample(Trained(p, ()), CHAINS, h, k))
    found = np.asarray(drawn(params, numbers, jax.random.key(2)))
    covariance = matrix @ matrix.T + 0.5 * np.eye(3)
    error = np.abs(np.cov(found.T) - covariance).max() / np.abs(covariance).max()
    return Measured(float(error), STATISTICAL)
