"""Speed of a MAML meta-step: this package against a plain loop over tasks, in one run.

    python benchmarks/maml.py [--framework torch|tf|both] [--rounds 20] [--conv]

Every contender computes the same meta-gradient (checked first).  Their steps are interleaved, so
that what else the machine does hits all alike; CPU time of this process is compared, median over
the rounds.  ``higher`` joins in where it is installed (in an environment of its own, since the
course does not need it).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (reads the thread variables set above)

from fewshot_course.data import (  # noqa: E402  (so does this)
    Episodes,
    EpisodeSampler,
    SinusoidSampler,
    load_dataset,
)

Gradient = Callable[[], list[np.ndarray]]


def episodes_of(problem: str) -> Episodes:
    if problem.startswith("sinusoid"):
        return SinusoidSampler(10, 10).sample(0, 25)
    glyphs = load_dataset("glyphs", "test")
    return EpisodeSampler(glyphs.X, glyphs.y, 5, 1, 1).sample(0, 16)


PROBLEMS = {
    "sinusoid, 1 step": {"task": "regression", "inner_steps": 1, "inner_lr": 0.01},
    "sinusoid, 5 steps": {"task": "regression", "inner_steps": 5, "inner_lr": 0.01},
    "conv4, 5 steps": {"inner_steps": 5, "inner_lr": 0.05, "statistics": "transductive"},
}


def prepared(learner: Any, episodes: Episodes) -> Any:
    learner.input_shape_ = tuple(episodes.X_support.shape[2:])
    learner.n_outputs_ = 1 if learner.task == "regression" else 5
    learner._build(np.random.default_rng(0), "cpu")
    return learner


def ours(learner: Any, episodes: Episodes) -> Gradient:
    theta, tensors = learner._trained(), learner._tensors(episodes)

    def step() -> list[np.ndarray]:
        return [np.asarray(g) for g in learner._meta_gradient(theta, tensors, None)[1]]

    return step


def torch_loop(learner: Any, episodes: Episodes) -> Gradient:
    """One task after the other, with functional_call and autograd."""
    import torch
    from torch.func import functional_call

    network, theta = learner.network_, learner._trained()
    tensors = learner._tensors(episodes)
    network.train()
    buffers = {name: b.clone() for name, b in network.named_buffers()}

    def loss(weights: Any, x: Any, y: Any) -> Any:
        outputs = functional_call(network, {**buffers, **weights}, (x,))
        return learner._loss(outputs[None], y[None])

    def step() -> list[np.ndarray]:
        total = [torch.zeros_like(p) for p in theta.values()]
        for Xs, ys, Xq, yq in zip(*tensors, strict=True):
            weights = dict(theta)
            for _ in range(learner.inner_steps):
                inner = torch.autograd.grad(
                    loss(weights, Xs, ys), list(weights.values()), create_graph=True
                )
                weights = {
                    k: w - learner.inner_lr * g
                    for (k, w), g in zip(weights.items(), inner, strict=True)
                }
            outer = torch.autograd.grad(loss(weights, Xq, yq), list(theta.values()))
            total = [a + b / len(tensors[0]) for a, b in zip(total, outer, strict=True)]
        return [t.numpy() for t in total]

    return step


def torch_higher(learner: Any, episodes: Episodes) -> Gradient:
    import higher
    import torch

    network, theta = learner.network_, learner._trained()
    tensors = learner._tensors(episodes)
    optimizer = torch.optim.SGD(network.parameters(), lr=learner.inner_lr)

    def step() -> list[np.ndarray]:
        total = [torch.zeros_like(p) for p in theta.values()]
        for Xs, ys, Xq, yq in zip(*tensors, strict=True):
            with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (f, inner):
                for _ in range(learner.inner_steps):
                    inner.step(learner._loss(f(Xs)[None], ys[None]))
                loss = learner._loss(f(Xq)[None], yq[None])
                outer = torch.autograd.grad(loss, list(theta.values()))
            total = [a + b / len(tensors[0]) for a, b in zip(total, outer, strict=True)]
        return [t.numpy() for t in total]

    return step


def tf_loop(learner: Any, episodes: Episodes) -> Gradient:
    """One task after the other, eagerly, as it is usually written."""
    import tensorflow as tf

    from fewshot_course.tf import maml, meta_networks

    theta, tensors = learner._trained(), learner._tensors(episodes)

    def step() -> list[np.ndarray]:
        total = [0.0 for _ in theta]
        for index in range(len(tensors[0])):
            Xs, ys, Xq, yq = (t[index : index + 1] for t in tensors)
            with tf.GradientTape() as tape:
                weights = meta_networks.expand(theta, 1)
                adapted = maml.adapt(
                    lambda w: learner._loss(meta_networks.apply(learner.network_, w, Xs), ys),  # noqa: B023  (called at once)
                    weights,
                    learner.inner_lr,
                    learner.inner_steps,
                )
                loss = learner._loss(meta_networks.apply(learner.network_, adapted, Xq), yq)
            outer = tape.gradient(loss, list(theta.values()))
            total = [a + b / len(tensors[0]) for a, b in zip(total, outer, strict=True)]
        return [np.asarray(t) for t in total]

    return step


def own_module(learner: Any, framework: str) -> Any:
    """The same network as the user's own module: the general path (vmap, vectorized_map)."""
    import copy
    import importlib

    networks = importlib.import_module(f"fewshot_course.{framework}.networks")
    kind = type("Own", (networks.MLP,), {})
    other = copy.copy(learner)
    arguments = (learner.input_shape_, learner.n_outputs_, learner.hidden)
    other.network_ = networks.build(
        lambda: kind(*arguments), *arguments[:2], np.random.default_rng(0), learner.dtype
    )
    networks.from_numpy(other.network_, networks.to_numpy(learner.network_))
    other._compiled = {}
    return other


def contenders(framework: str, problem: str, dtype: str = "float32") -> dict[str, Gradient]:
    import importlib

    package = importlib.import_module(f"fewshot_course.{framework}")
    episodes = episodes_of(problem)
    learner = prepared(package.MAML(dtype=dtype, **PROBLEMS[problem]), episodes)
    found = {"loop over tasks": torch_loop(learner, episodes)} if framework == "torch" else {}
    if framework == "tf":
        # The same loop in PyTorch is the yardstick; TensorFlow's own, uncompiled, is far slower.
        other = importlib.import_module("fewshot_course.torch").MAML(
            dtype=dtype, **PROBLEMS[problem]
        )
        found["loop over tasks"] = in_keras_layout(torch_loop(prepared(other, episodes), episodes))
        if problem.startswith("sinusoid"):
            found["loop in TensorFlow, eager"] = tf_loop(learner, episodes)
    found["this package"] = ours(learner, episodes)
    if problem.startswith("sinusoid"):
        found["this package, own module"] = ours(own_module(learner, framework), episodes)
    if framework == "torch":
        try:
            found["higher"] = torch_higher(learner, episodes)
        except ImportError:
            print("(higher is not installed here: left out)")
    return found


def in_keras_layout(step: Gradient) -> Gradient:
    """Transpose torch's gradients of linear layers and convolutions."""
    axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
    return lambda: [g.transpose(axes[g.ndim]) for g in step()]


def check(found: dict[str, Gradient]) -> None:
    """Raise unless all contenders compute one gradient, to 1e-8 of its largest entry."""
    reference = [np.array(g) for g in found["loop over tasks"]()]
    for name, step in found.items():
        for ours, theirs in zip(step(), reference, strict=True):
            atol = 1e-8 * np.abs(theirs).max() + 1e-12
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=name)


def measure(found: dict[str, Gradient], rounds: int) -> dict[str, float]:
    """Median CPU seconds of a step, all contenders interleaved."""
    for step in found.values():
        step()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, step in found.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", choices=["torch", "tf", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--conv", action="store_true", help="conv4 too (seconds a step)")
    options = parser.parse_args()
    print(f"{'framework':10} {'problem':18} {'contender':25} {'ms':>8} {'times the loop':>15}")
    for framework in ["torch", "tf"] if options.framework == "both" else [options.framework]:
        if framework == "torch":
            import torch

            torch.set_num_threads(1)
        for problem in PROBLEMS:
            if problem.startswith("conv4") and not options.conv:
                continue
            rounds = max(3, options.rounds // 5) if problem.startswith("conv4") else options.rounds
            check(contenders(framework, problem, "float64"))
            times = measure(contenders(framework, problem), rounds)
            for name, seconds in times.items():
                ratio = times["loop over tasks"] / seconds
                print(f"{framework:10} {problem:18} {name:25} {1000 * seconds:8.2f} {ratio:15.1f}")
    print(f"peak memory of all: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
