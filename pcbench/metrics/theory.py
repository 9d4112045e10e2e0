"""What theory says of predictive coding on a network at hand, measured as `train.theory` asks.

All of the `pc` energy under squared error with precisions 1, whatever rule trains the network; of
nonlinear networks to first order around the forward pass. Means over SAMPLES samples of the probe
batch; NaN under other losses and for networks without hidden layers.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.sparse.linalg import cg

from pcbench.algorithms.base import Algorithm, Batch, Hyper
from pcbench.energies.curvature import activity_hessian, spectrum
from pcbench.energies.energy import squared_error
from pcbench.energies.equilibrium import mean_rescaling, rescaling
from pcbench.networks.parameterisations import place

SAMPLES = 4
LANCZOS = 200  # products with the Hessian, for each sample


def curvature(
    algorithm: Algorithm, weights: tuple, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Array]:
    """condition_number: of ∂²F/∂h² at the forward states, the output held at the target."""
    network = algorithm.network
    if not _applies(algorithm):
        return {"condition_number": jnp.full((), jnp.nan)}

    def of_sample(inputs):
        x, y = inputs
        hidden = network.forward(weights, x[None])[:-1]
        operator, like = activity_hessian(network, weights, (*hidden, y[None]), x[None])
        return spectrum(operator, like, key, LANCZOS).condition

    found = jax.lax.map(of_sample, (batch.x[:SAMPLES], batch.target[:SAMPLES]))
    return {"condition_number": jnp.mean(found)}


def equilibrium(
    algorithm: Algorithm, weights: tuple, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Array]:
    """Costs one reverse pass per output and sample.

    - rescaling_excess    s - 1, s = tr(S)/C
    - equilibrium_ratio   F*/loss = eᵀS⁻¹e / eᵀe, e = y - ŷ (Innocenti et al. 2024)
    - depth_over_width    L/(γ₀²N), of which both are functions in wide linear residual networks
    """
    network, nan = algorithm.network, jnp.full((), jnp.nan)
    around = place(network)
    ratio = around.length / (hyper["parameterisation"]["gamma0"] ** 2 * around.width)
    found = {"rescaling_excess": nan, "equilibrium_ratio": nan}
    if not _applies(algorithm):
        return found | {"depth_over_width": ratio}

    def of_sample(inputs):
        x, y = inputs
        scaling = rescaling(network, weights, x)
        error = y - network.forward(weights, x[None])[-1][0]
        # S is positive definite and small: conjugate gradients end after C steps
        relaxed, _ = cg(lambda v: scaling @ v, error, maxiter=len(error), tol=1e-10)
        return mean_rescaling(scaling) - 1, (error @ relaxed) / (error @ error)

    values = jax.lax.map(of_sample, (batch.x[:SAMPLES], batch.target[:SAMPLES]))
    means = dict(zip(found, map(jnp.mean, values), strict=True))
    return means | {"depth_over_width": ratio}


THEORY = {"curvature": curvature, "equilibrium": equilibrium}


def _applies(algorithm: Algorithm) -> bool:
    return algorithm.loss is squared_error and algorithm.network.layers > 1
