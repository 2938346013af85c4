"""One JAX-Privacy training in a process of its own; needs neither torch nor cloister.

Use: python _jax_child.py MODEL BATCH RECORDS     Each line read is a number of steps to take; the answer is
their CPU time in seconds.

Poisson batches, clipped gradients and Gaussian noise are JAX-Privacy's own; a step is compiled as one.
Batches are padded to a multiple, as its documentation shows, and every padded size is compiled before time
is taken.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax_privacy import batch_selection, clipping, noise_addition

WIDTHS = {"logistic regression": (30, 2), "MLP": (32, 2), "CNN 28x28": (784, 10), "ECG 1-D CNN": (360, 5)}
Weights = list[tuple[jax.Array, jax.Array]]


def layers(*shapes: tuple[int, ...]) -> Weights:
    """Each shape is that of a layer's weights, outputs first."""
    generator = np.random.default_rng(0)
    return [
        (
            jnp.asarray(generator.standard_normal(shape, dtype=np.float32) / math.sqrt(math.prod(shape[1:]))),
            jnp.zeros(shape[0]),
        )
        for shape in shapes
    ]


def dense(layer: tuple[jax.Array, jax.Array], rows: jax.Array) -> jax.Array:
    return rows @ layer[0].T + layer[1]


def convolved(layer: tuple[jax.Array, jax.Array], rows: jax.Array, stride: int, padding: int) -> jax.Array:
    dimensions = rows.ndim - 2
    out = lax.conv_general_dilated(rows, layer[0], [stride] * dimensions, [(padding, padding)] * dimensions)
    return jax.nn.relu(out + layer[1].reshape(1, -1, *[1] * dimensions))


def pooled(rows: jax.Array) -> jax.Array:
    return lax.reduce_window(rows, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 1, 1), "VALID")


def logits(name: str, weights: Weights, rows: jax.Array) -> jax.Array:
    """The same networks as ``engine.MODELS``."""
    if name == "CNN 28x28":
        rows = pooled(convolved(weights[0], rows.reshape(-1, 1, 28, 28), 2, 3))
        rows = pooled(convolved(weights[1], rows, 2, 0))
        weights = weights[2:]
    elif name == "ECG 1-D CNN":
        rows = rows.reshape(-1, 1, 360)
        for layer, padding in zip(weights[:3], (3, 2, 2), strict=True):
            rows = convolved(layer, rows, 2, padding)
        # 45 positions in 8 overlapping windows, as torch's adaptive pooling takes them.
        edges = [(i * 45 // 8, -(-(i + 1) * 45 // 8)) for i in range(8)]
        rows = jnp.stack([rows[:, :, first:last].mean(axis=2) for first, last in edges], axis=2)
        weights = weights[3:]
    rows = rows.reshape(rows.shape[0], -1)
    for layer in weights[:-1]:
        rows = jax.nn.relu(dense(layer, rows))
    return dense(weights[-1], rows)


STARTS: dict[str, Callable[[], Weights]] = {
    "logistic regression": lambda: layers((2, 30)),
    "MLP": lambda: layers((64, 32), (64, 64), (2, 64)),
    "CNN 28x28": lambda: layers((16, 1, 8, 8), (32, 16, 4, 4), (32, 512), (10, 32)),
    "ECG 1-D CNN": lambda: layers((16, 1, 7), (32, 16, 5), (32, 32, 5), (5, 256)),
}


def main(name: str, batch: int, records: int) -> None:
    """Compiles, says so by an empty answer, then takes as many steps as each line asks for."""
    width, classes = WIDTHS[name]
    generator = np.random.default_rng(0)
    features = jnp.asarray(generator.standard_normal((records, width), dtype=np.float32))
    labels = jnp.asarray(generator.integers(0, classes, records))

    def loss(weights: Weights, rows: jax.Array, answers: jax.Array) -> jax.Array:
        scores = jax.nn.log_softmax(logits(name, weights, rows))
        return -jnp.take_along_axis(scores, answers[:, None], axis=1).mean()

    gradient = clipping.clipped_grad(loss, l2_clip_norm=1.0, batch_argnums=(1, 2), normalize_by=float(batch))
    privatizer = noise_addition.gaussian_privatizer(stddev=1.0 / batch, prng_key=jax.random.key(0))

    @jax.jit
    def step(weights: Weights, state: object, chosen: jax.Array) -> tuple[Weights, object]:
        clipped = gradient(weights, features[chosen], labels[chosen], is_padding_example=chosen < 0)
        noisy, state = privatizer.update(clipped, state)
        return jax.tree.map(lambda weight, part: weight - 0.1 * part, weights, noisy), state

    multiple = max(32, batch // 8)

    def batches() -> Iterator[np.ndarray]:
        law = batch_selection.CyclicPoissonSampling(sampling_prob=batch / records, iterations=10**6)
        return (batch_selection.pad_to_multiple_of(one, multiple) for one in law.batch_iterator(records, 0))

    weights = STARTS[name]()
    state = privatizer.init(weights)
    spread = 6 * math.sqrt(batch)
    for size in range(multiple, int(batch + spread) + multiple, multiple):
        if size >= batch - spread:
            weights, state = step(weights, state, np.full(size, -1))
    draws = batches()
    for size in [next(draws) for _ in range(8)]:
        weights, state = step(weights, state, size.astype(np.int64))
    jax.block_until_ready(weights)
    print(flush=True)
    for line in sys.stdin:
        started = time.process_time()
        for chosen in itertools.islice(draws, int(line)):
            weights, state = step(weights, state, chosen.astype(np.int64))
        jax.block_until_ready(weights)
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
