"""What theory says of predictive coding on a network at hand, measured as `train.theory` asks.

All of the `pc` energy under squared error with precisions 1, whatever rule trains the network; of
nonlinear networks to first order around the forward pass. Means over SAMPLES samples of the probe
batch; NaN under other losses, for networks without hidden layers and for graphs.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.sparse.linalg import cg

from pcbench.algorithms.base import Algorithm, Batch, Hyper
from pcbench.energies import linear
from pcbench.energies.curvature import activity_hessian, spectrum
from pcbench.energies.energy import squared_error
from pcbench.energies.equilibrium import largest_rescaling, mean_rescaling, rescaling
from pcbench.metrics.alignment import cosine
from pcbench.networks.graph import Graph
from pcbench.networks.parameterisations import place

SAMPLES = 4
LANCZOS = 200  # products with the Hessian, for each sample


def curvature(
    algorithm: Algorithm, weights: tuple, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Array]:
    """condition_number: of ∂²F/∂h² at the forward states, with the output held at the prediction.

    Without errors the Hessian is that of Gauss and Newton, JᵀJ: positive definite. In networks of
    linear pieces it does not depend on the target anyway; in smooth ones a distant target may bend
    it until the energy has no minimum nearby, and no condition number.
    """
    network = algorithm.network
    if not _applies(algorithm):
        return {"condition_number": jnp.full((), jnp.nan)}

    def of_sample(x):
        states = network.forward(weights, x[None])
        operator, like = activity_hessian(network, weights, states, x[None])
        return spectrum(operator, like, key, LANCZOS).condition

    found = jax.lax.map(of_sample, batch.x[:SAMPLES])
    return {"condition_number": jnp.mean(found)}


def equilibrium(
    algorithm: Algorithm, weights: tuple, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Array]:
    """Costs one reverse pass per output and sample.

    - rescaling_excess    s - 1, s = tr(S)/C; rescaling_norm_excess: ‖S‖₂ - 1
    - equilibrium_ratio   F*/loss = eᵀS⁻¹e / eᵀe, e = y - ŷ (Innocenti et al. 2024)
    - depth_over_width    L/(γ₀²N), of which both are functions in wide linear residual networks
    """
    network, nan = algorithm.network, jnp.full((), jnp.nan)
    around = place(network)
    ratio = around.length / (hyper["parameterisation"]["gamma0"] ** 2 * around.width)
    found = {"rescaling_excess": nan, "rescaling_norm_excess": nan, "equilibrium_ratio": nan}
    if not _applies(algorithm):
        return found | {"depth_over_width": ratio}

    def of_sample(inputs):
        x, y = inputs
        scaling = rescaling(network, weights, x)
        error = y - network.forward(weights, x[None])[-1][0]
        # S is positive definite and small: conjugate gradients end after C steps
        relaxed, _ = cg(lambda v: scaling @ v, error, maxiter=len(error), tol=1e-10)
        excess = mean_rescaling(scaling) - 1, largest_rescaling(scaling) - 1
        return *excess, (error @ relaxed) / (error @ error)

    values = jax.lax.map(of_sample, (batch.x[:SAMPLES], batch.target[:SAMPLES]))
    means = dict(zip(found, map(jnp.mean, values), strict=True))
    return means | {"depth_over_width": ratio}


def alignment(
    algorithm: Algorithm, weights: tuple, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Array]:
    """The closed forms of the target alignment of a deep linear network for single samples, under
    bp and under pc at equilibrium (target_alignment_bp, target_alignment_pc): mean over SAMPLES.
    NaN for any other network."""
    network, rules = algorithm.network, ("bp", "pc")
    if not (_applies(algorithm) and linear.is_linear_chain(network)):
        return {f"target_alignment_{rule}": jnp.full((), jnp.nan) for rule in rules}
    chain = linear.matrices(network, weights)

    def of_sample(inputs):
        x, y = inputs
        error = y - linear.forward(chain, x)[-1]
        return [cosine(linear.output_change(chain, x, y, rule), error) for rule in rules]

    found = jax.lax.map(
        of_sample, (batch.x[:SAMPLES].reshape(-1, chain[0].shape[1]), batch.target[:SAMPLES])
    )
    return {f"target_alignment_{r}": jnp.nanmean(v) for r, v in zip(rules, found, strict=True)}


THEORY = {"curvature": curvature, "equilibrium": equilibrium, "alignment": alignment}


def _applies(algorithm: Algorithm) -> bool:
    network = algorithm.network
    chain = not isinstance(network, Graph)
    return algorithm.loss is squared_error and chain and network.layers > 1
