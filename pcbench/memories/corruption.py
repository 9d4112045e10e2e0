"""What is done to a stored pattern: (key, images (B, H, W, C) or vectors (B, D), level) →
(the cue, booleans: its elements that are known to be right, of a shape that broadcasts)."""

import jax
import jax.numpy as jnp


def noise(key, x, level):
    """Gaussian noise of standard deviation `level`; nothing is known for sure."""
    return x + level * jax.random.normal(key, x.shape, x.dtype), jnp.zeros((), bool)


def clipped_noise(key, x, level):
    """clip(|x + n|, 0, 1) with the noise n of `noise`, of images in [0, 1]: Millidge et al. 2022,
    arXiv 2202.04557."""
    noisy, known = noise(key, x, level)
    return jnp.clip(jnp.abs(noisy), 0, 1), known


def mask(key, x, level):
    """The last rows are missing (zero), a share `level` of them."""
    rows = x.shape[1]
    known = (jnp.arange(rows) < jnp.round((1 - level) * rows)).reshape(1, rows, 1, 1)
    return jnp.where(known, x, 0), known


def pixels(key, x, level):
    """A share `level` of the pixels, all channels of each, is missing (zero)."""
    shape = (*x.shape[:3], 1) if x.ndim == 4 else x.shape
    known = jax.random.uniform(key, shape) >= level
    return jnp.where(known, x, 0), known


def shift(key, x, level):
    """Every image is moved by at most `level` pixels along both axes; zeros move in."""
    rows, columns = x.shape[1:3]
    moves = jax.random.randint(key, (x.shape[0], 2), -level.astype(int), level.astype(int) + 1)

    def moved(image, move):
        row, column = (jnp.arange(n) - m for n, m in zip((rows, columns), move, strict=True))
        inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
        taken = image[jnp.clip(row, 0, rows - 1)][:, jnp.clip(column, 0, columns - 1)]
        return jnp.where(inside[..., None], taken, 0)

    return jax.vmap(moved)(x, moves), jnp.zeros((), bool)


def block(key, x, level):
    """A square of side `level` is missing (zero) at a random place of each image; of an image that
    is smaller, all."""
    count, *sides = x.shape[:3]
    spare = jnp.maximum(jnp.asarray(sides) - level.astype(int), 0)
    corners = jax.random.randint(key, (count, 2), 0, spare + 1)
    places = (jnp.arange(n) - corners[:, axis, None] for axis, n in enumerate(sides))
    row, column = ((place >= 0) & (place < level) for place in places)
    known = ~(row[:, :, None] & column[:, None, :])[..., None]
    return jnp.where(known, x, 0), known


CORRUPTIONS = {
    "noise": noise,
    "clipped_noise": clipped_noise,
    "mask": mask,
    "pixels": pixels,
    "block": block,
    "shift": shift,
}
