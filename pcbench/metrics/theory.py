"""What theory says of predictive coding on a network at hand, measured when `train.theory` is set.

All of the `pc` energy under squared error with precisions 1, whatever rule trains the network; of
nonlinear networks to first order around the forward pass. Costs, for each of SAMPLES samples,
LANCZOS products with the Hessian of the energy and one reverse pass per output.
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

SAMPLES = 4  # of the probe batch
LANCZOS = 200

COLUMNS = ("condition_number", "rescaling_excess", "equilibrium_ratio", "depth_over_width")


def theory(
    algorithm: Algorithm, weights: tuple, batch: Batch, hyper: Hyper, key: Array
) -> dict[str, Array]:
    """Means over samples:

    - condition_number    of ∂²F/∂h² at the forward states, the output held at the target
    - rescaling_excess    s - 1, s = tr(S)/C
    - equilibrium_ratio   F*/loss = eᵀS⁻¹e / eᵀe, e = y - ŷ (Innocenti et al. 2024)
    - depth_over_width    L/(γ₀²N), what the first two tend to be functions of

    NaN under other losses and for networks without hidden layers.
    """
    network = algorithm.network
    if algorithm.loss is not squared_error or network.layers < 2:
        return dict.fromkeys(COLUMNS, jnp.full((), jnp.nan))

    def of_sample(inputs):
        x, y = inputs
        *hidden, output = network.forward(weights, x[None])
        operator, like = activity_hessian(network, weights, (*hidden, y[None]), x[None])
        scaling = rescaling(network, weights, x)
        error = y - output[0]
        # S is positive definite and small: conjugate gradients end after C steps
        relaxed, _ = cg(lambda v: scaling @ v, error, maxiter=len(error), tol=1e-10)
        return {
            "condition_number": spectrum(operator, like, key, LANCZOS).condition,
            "rescaling_excess": mean_rescaling(scaling) - 1,
            "equilibrium_ratio": (error @ relaxed) / (error @ error),
        }

    found = jax.lax.map(of_sample, (batch.x[:SAMPLES], batch.target[:SAMPLES]))
    around = place(network)
    ratio = around.length / (hyper["parameterisation"]["gamma0"] ** 2 * around.width)
    return jax.tree.map(jnp.mean, found) | {"depth_over_width": ratio}
