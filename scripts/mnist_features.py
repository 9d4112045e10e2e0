"""Makes the classifier whose features `mnist_feature_distance` compares: a small VGG-5, trained by
backpropagation on MNIST.

    python scripts/mnist_features.py --results results

Writes pcbench/metrics/mnist_features.npz: the weights, the config that made them and its test
accuracy. Another machine or version of JAX may make other weights, from rounding on: the file that
is stored defines the distance.
"""

import argparse
import json

import numpy as np

import pcbench
from pcbench.metrics.mnist_features import MODEL, WEIGHTS

OVERRIDES = [
    "algorithm=bp", f"model={MODEL['name']}", f"model.channels={MODEL['channels']}",
    f"model.activation={MODEL['activation']}", "dataset=mnist", "dataset.mean=[0]",
    "dataset.std=[1]", "task.loss=cross_entropy", "train.epochs=3", "train.batch_size=100",
    "train.validation_fraction=0", "train.selection=final", "train.eval_every=3", "seed=0",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--results", default="results", help="where the run is stored")
    results = parser.parse_args().results
    record = pcbench.run(OVERRIDES, results=results)
    arrays = pcbench.load(record.run_id, results).arrays
    weights = {
        name.removeprefix("weights/"): array.astype(np.float32)
        for name, array in arrays.items()
        if name.startswith("weights/")
    }
    made = {"overrides": OVERRIDES, "test_accuracy": record.row["test_accuracy_final"]}
    np.savez(WEIGHTS, made=json.dumps(made), **weights)
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
