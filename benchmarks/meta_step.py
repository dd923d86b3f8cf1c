"""What a meta-step of a conv4 costs: layers in their usual order against pooling first, in one run.

    python benchmarks/meta_step.py [--framework torch|tf|both] [--rounds 7]

Both orders compute the same gradient (checked first).  Their steps are interleaved, so that what
else the machine does hits both alike; CPU time of this process is compared, median over the
rounds, on one thread.  The strided network of MAML's authors stands beside them: another network.
Below, the time that 48 tasks take when they are scored: alone, and together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (reads the thread variables set above)

from fewshot_course.data import Episodes, EpisodeSampler  # noqa: E402  (so does this)
from fewshot_course.frameworks import framework_module  # noqa: E402

Work = Callable[[], Any]

MAML = {"channels": 32, "inner_lr": 0.1, "n_tasks": 8}
PROBLEMS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "MAML, 1 step, transductive": (
        "MAML", MAML | {"inner_steps": 1, "statistics": "transductive"}, (5, 1, 5),
    ),
    "MAML, 3 steps, inductive": ("MAML", MAML | {"inner_steps": 3}, (5, 1, 5)),
    "ProtoNet, 60-way": ("ProtoNet", {"channels": 64, "n_tasks": 1}, (60, 1, 5)),
}  # fmt: skip


def sampler(ways: int, shots: int, queries: int) -> EpisodeSampler:
    X = np.random.default_rng(0).uniform(size=(60 * 12, 28, 28)).astype(np.float32)
    return EpisodeSampler(X, np.repeat(np.arange(60), 12), ways, shots, queries)


def prepared(framework: str, method: str, settings: dict[str, Any], episodes: Episodes) -> Any:
    learner = getattr(framework_module(framework), method)(**settings)
    learner.input_shape_, learner.n_outputs_ = (28, 28), int(episodes.y_support.max()) + 1
    learner._build(np.random.default_rng(0), "cpu")
    return learner


def torch_usual(
    network: Any, parameters: Any, X: Any, n_reference: int | None, shared: bool
) -> Any:
    """Convolution, batch norm, ReLU and pooling, one after the other, as a paper draws them."""
    import torch.nn.functional as F
    from torch import nn

    from fewshot_course.torch import meta_networks

    n_tasks, n = X.shape[:2]
    x = X[..., None].permute(1, 0, 4, 2, 3).flatten(1, 2)
    for index, layer in enumerate(network.body):
        if not isinstance(layer, nn.Conv2d):
            continue
        names = (f"{index}.weight", f"{index + 1}.weight", f"{index + 1}.bias")
        kernel, weight, bias = (parameters[f"body.{name}"] for name in names)
        if shared:
            kernel, weight, bias = (p.expand(n_tasks, *p.shape) for p in (kernel, weight, bias))
        pooled = min(x.shape[2:]) >= 2
        x = F.conv2d(x, kernel.flatten(0, 1), padding=1, groups=n_tasks)
        x = F.relu(meta_networks._normalise(x, weight.flatten(), bias.flatten(), n_reference))
        x = F.max_pool2d(x, 2) if pooled else x
    return x.unflatten(1, (n_tasks, -1)).permute(1, 0, 3, 4, 2).reshape(n_tasks, n, -1)


def tf_usual(network: Any, theta: Any, X: Any, n_reference: int | None) -> Any:
    """The same, one task after the other."""
    import tensorflow as tf

    from fewshot_course.tf import meta_networks

    tasks = []
    for x in tf.unstack(X[..., None]):
        for conv, norm in zip(network.body[::2], network.body[1::2], strict=True):
            pooled = min(x.shape[1:3]) >= 2
            x = tf.nn.conv2d(x, theta[f"{conv.name}.weight"], 1, "SAME")
            weight, bias = theta[f"{norm.name}.weight"], theta[f"{norm.name}.bias"]
            x = tf.nn.relu(meta_networks._normalise(x, weight, bias, n_reference))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID") if pooled else x
        tasks.append(tf.reshape(x, (x.shape[0], -1)))
    return tf.stack(tasks)


def with_order(framework: str, usual: bool, work: Work) -> Work:
    """Return ``work`` as it runs with one of the two orders."""
    meta = framework_module(framework, "meta_networks")
    name = "_conv_bodies" if framework == "torch" else "_conv_features"
    ours = getattr(meta, name)
    theirs = torch_usual if framework == "torch" else tf_usual

    def run() -> Any:
        setattr(meta, name, theirs if usual else ours)
        try:
            return work()
        finally:
            setattr(meta, name, ours)

    return run


def medians(contenders: dict[str, Work], rounds: int) -> dict[str, float]:
    """CPU milliseconds of each, the rounds interleaved; the first call compiles and is left out."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()
    for _ in range(rounds):
        for name, work in contenders.items():
            start = time.process_time()
            work()
            times[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def steps(framework: str, rounds: int) -> None:
    for title, (method, settings, task) in PROBLEMS.items():
        episodes = sampler(*task).sample(1, settings["n_tasks"])

        def gradient(
            network: str, method: str = method, settings: Any = settings, episodes: Any = episodes
        ) -> Work:
            learner = prepared(framework, method, {**settings, "network": network}, episodes)
            theta, tensors = learner._trained(), learner._tensors(episodes)
            return lambda: [np.asarray(g) for g in learner._meta_gradient(theta, tensors, None)[1]]

        contenders = {
            "usual order": with_order(framework, True, gradient("conv4")),
            "pooling first": with_order(framework, False, gradient("conv4")),
            "strided network": gradient("conv4-strided"),
        }
        first, second = (contenders[name]() for name in list(contenders)[:2])
        largest = max(np.abs(g).max() for g in first)
        gap = max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)) / largest
        assert gap < 1e-2, f"the two orders differ by {gap:.1e}"
        found = medians(contenders, rounds)
        print(f"{framework}, {title}:")
        for name, ms in found.items():
            print(f"  {name:16} {ms:7.1f} ms  {found['usual order'] / ms:5.2f} times as fast")


def scoring(framework: str, rounds: int) -> None:
    episodes = sampler(5, 1, 5).sample(2, 48)
    for method in ("ProtoNet", "ANIL"):
        learner = prepared(framework, method, {"channels": 32}, episodes)
        parts = (episodes.X_support, episodes.y_support, episodes.X_query, episodes.y_query)
        alone = [Episodes(*(part[i : i + 1] for part in parts)) for i in range(len(episodes))]

        def one_by_one(learner: Any = learner, alone: Any = alone) -> list[np.ndarray]:
            return [learner.evaluate(one) for one in alone]

        contenders: dict[str, Work] = {
            "alone": one_by_one,
            "together": partial(learner.evaluate, episodes),
        }
        assert np.allclose(np.concatenate(contenders["alone"]()), contenders["together"]())
        found = medians(contenders, rounds)
        print(f"{framework}, 48 tasks scored by {method}:")
        for name, ms in found.items():
            print(f"  {name:16} {ms:7.1f} ms  {found['alone'] / ms:5.2f} times as fast")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=["torch", "tf", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    kinds = ["torch", "tf"] if chosen.framework == "both" else [chosen.framework]
    for kind in kinds:
        full = {"torch": "torch", "tf": "tensorflow"}[kind]
        if kind == "torch":
            import torch

            torch.set_num_threads(1)
        steps(full, chosen.rounds)
        scoring(full, chosen.rounds)
