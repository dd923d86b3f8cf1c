"""EM for Gaussian mixtures against its peers, on the same work, interleaved in one run.

    python benchmarks/gmm.py [--repeats 5] [--steps 3] [--peer PYTHON]

Every variant starts from the same parameters and does the same number of steps in float64; the
mean log-likelihoods must agree to 1e-8.  CPU time of this process is compared; only the ratios
mean anything.  ``--peer`` is an interpreter of a separate environment in which
``pip install semi-supervised-gmm torch`` has been done; semi-supervised EM is then compared too.
One thread unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  (reads the variables)

SIZES = ((20_000, 64), (200_000, 32))
COVARIANCES = ("full", "diag", "tied", "spherical")


def make(n, d, k, seed=0):
    """Overlapping Gaussians, centred, and soft responsibilities to start from."""
    rng = np.random.default_rng(seed)
    z = rng.integers(k, size=n)
    means, shapes = rng.normal(size=(k, d)), rng.normal(size=(k, d, d)) / np.sqrt(d)
    X = np.empty((n, d))
    for j in range(k):
        own = z == j
        X[own] = means[j] + rng.normal(size=(own.sum(), d)) @ (shapes[j] + np.eye(d) / 2)
    R = rng.random((n, k)) + 2 * np.eye(k)[z]
    return X - X.mean(0), R / R.sum(1, keepdims=True)


def torch_em(X, R, covariance, steps):
    import torch

    from fewshot_course.torch import gmm

    x, r = torch.as_tensor(X), torch.as_tensor(R)
    start = gmm.m_step(gmm.statistics(x, r, covariance), covariance)

    def run():
        return gmm.em(x, start, covariance, max_iter=steps, tol=-1.0)[1]

    return run, [part.numpy() for part in start]


def tensorflow_em(X, start, covariance, steps):
    from fewshot_course.tf import gmm

    import tensorflow as tf  # isort: skip

    x, mixture = tf.constant(X), gmm.Mixture(*map(tf.constant, start))
    return lambda: gmm.em(x, mixture, covariance, max_iter=steps, tol=-1.0)[1]


def sklearn_em(X, start, covariance, steps):
    from sklearn.mixture import GaussianMixture

    weights, means, covariances = start
    inverse = np.linalg.inv if covariance in ("full", "tied") else np.reciprocal
    model = GaussianMixture(
        len(weights), covariance_type=covariance, tol=0, reg_covar=0, max_iter=steps,
        weights_init=weights, means_init=means, precisions_init=inverse(covariances),
    )  # fmt: skip

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X)
        return [*getattr(model, "lower_bounds_", [model.lower_bound_])]

    return run


def interleave(variants, repeats):
    """Median CPU seconds of each variant; the first round warms up and gives the values."""
    seconds, values = {name: [] for name in variants}, {}
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            begin = time.process_time()
            values[name] = run()
            if repeat:
                seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(s) for name, s in seconds.items()}, values


def unsupervised(repeats, steps):
    print("times faster than scikit-learn, by CPU time")
    print(
        f"{'n':>7} {'d':>3} {'covariance':10} {'sklearn':>13} {'torch':>7} {'tf':>7}  mean log-lik."
    )
    for n, d in SIZES:
        X, R = make(n, d, 10)
        for covariance in COVARIANCES:
            torch_run, start = torch_em(X, R, covariance, steps)
            variants = {
                "sklearn": sklearn_em(X, start, covariance, steps),
                "torch": torch_run,
                "tf": tensorflow_em(X, start, covariance, steps),
            }
            cost, values = interleave(variants, repeats)
            last = {name: float(v[-1]) for name, v in values.items()}
            spread = max(last.values()) - min(last.values())
            # CPU time ratios, since another process may hold the machine.
            print(
                f"{n:7d} {d:3d} {covariance:10} {1e3 * cost['sklearn'] / steps:7.1f} ms/it "
                f"{cost['sklearn'] / cost['torch']:6.2f}x {cost['sklearn'] / cost['tf']:6.2f}x  "
                f"{last['torch']:.8f}{'' if spread < 1e-8 else f'  DIFFER by {spread:.1e}'}",
                flush=True,
            )


SEMI = """
import statistics, sys, time, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from semi_supervised_gmm._em import em_semisup
from fewshot_course.torch import gmm
rng = np.random.default_rng(0)
d, steps = 32, 10
def make(shift):
    mix = np.eye(d) + .2 * rng.normal(size=(d, d))
    return rng.normal(size=(20200, d)) @ mix + shift

a, b = make(.3), make(-.3)
positive, negative, rest = a[:200], b[:200], np.concatenate([a[200:], b[200:]])
X = torch.as_tensor(np.concatenate([negative, positive, rest]))
centre = X.mean(0)
X = X - centre
mask = torch.zeros(len(X), 2, dtype=torch.float64)
mask[:200, 1] = mask[200:400, 0] = -torch.inf
R = torch.zeros(400, 2, dtype=torch.float64)
R[:200, 0] = R[200:, 1] = 1
start = gmm.m_step(gmm.statistics(X[:400], R, "full"), "full", 1e-6)
ours = lambda: gmm.em(X, start, "full", mask=mask, floor=1e-6, max_iter=steps, tol=-1.0)[0]
peer = lambda: em_semisup(positive, negative, rest, max_iter=steps, tol=0.0, warn=False)[0]
seconds = {"ours": [], "peer": []}
for repeat in range(6):
    for name, run in (("peer", peer), ("ours", ours)):
        begin = time.process_time()
        value = run()
        if repeat:
            seconds[name].append(time.process_time() - begin)
        if name == "peer":
            theirs = value
means = (value.means + centre).numpy()
found = [v for v in vars(theirs).values() if getattr(v, "shape", None) == (d,)]
gap = max(min(np.abs(v - m).max() for v in found) for m in means)
cost = {name: statistics.median(s) / steps for name, s in seconds.items()}
print(f"semi-supervised EM, n=40400 d=32: peer {1e3 * cost['peer']:.1f} ms/it, torch "
      f"{cost['peer'] / cost['ours']:.2f}x, means differ by {gap:.1e}")
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--peer", help="interpreter that has semi-supervised-gmm and torch")
    options = parser.parse_args()
    unsupervised(options.repeats, options.steps)
    if options.peer:
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        subprocess.run([options.peer, "-c", SEMI, root], check=True)


if __name__ == "__main__":
    sys.exit(main())
