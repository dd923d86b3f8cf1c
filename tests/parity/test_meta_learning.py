"""Ten meta-updates, compiled as a user runs them: equal losses and predictions."""

import numpy as np
import pytest

from fewshot_course.data import EpisodeSampler, SinusoidSampler

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import fewshot_course.tf as course_tf
import fewshot_course.torch as course_torch

AFTER_TEN = {"float64": 1e-10, "float32": 1e-4}


def characters():
    X = np.random.default_rng(0).uniform(size=(40, 8, 8))
    return EpisodeSampler(X, np.repeat(np.arange(8), 5), 3, 3, 2)


class SomeLarge:
    """Sinusoids with 5 or 50 support points, as the generator says."""

    def sample(self, rng, n_tasks):
        rng = np.random.default_rng(rng)
        return SinusoidSampler(50 if rng.integers(2) else 5, 5).sample(rng, n_tasks)


SINUSOID = {"task": "regression", "inner_steps": 2}
ONE_STEP = {"task": "regression", "inner_steps": 1}
CASES = {
    "MAML, sinusoid": ("MAML", SINUSOID, SinusoidSampler(5, 5), ("float64", "float32")),
    "MAML, one step": ("MAML", ONE_STEP, SinusoidSampler(5, 5), ("float64", "float32")),
    "MAML, one step, tasks of two sizes": ("MAML", ONE_STEP, SomeLarge(), ("float64",)),
    "FOMAML, one step": ("FOMAML", ONE_STEP, SinusoidSampler(5, 5), ("float64",)),
    "MAML, characters": ("MAML", {"channels": 4, "inner_lr": 0.05}, characters(), ("float64",)),
    "FOMAML, sinusoid": ("FOMAML", SINUSOID, SinusoidSampler(5, 5), ("float64",)),
    "ANIL, sinusoid": ("ANIL", SINUSOID, SinusoidSampler(5, 5), ("float64",)),
    "Reptile, sinusoid": ("Reptile", {"task": "regression"}, SinusoidSampler(5, 5), ("float64",)),
    "ProtoNet, characters": ("ProtoNet", {"channels": 4}, characters(), ("float64",)),
    "MAML, strided": (
        "MAML", {"network": "conv4-strided", "channels": 4, "inner_lr": 0.05}, characters(),
        ("float64",),
    ),
    "ANIL, characters": ("ANIL", {"channels": 4, "inner_lr": 0.05}, characters(), ("float64",)),
    "ProtoNet, cosine": (
        "ProtoNet", {"channels": 4, "distance": "cosine", "scale": 5.0}, characters(), ("float64",),
    ),
    "ProtoNet, Mahalanobis": (
        "ProtoNet", {"channels": 4, "distance": "mahalanobis"}, characters(), ("float64",),
    ),
    "MatchingNet": (
        "MatchingNet", {"network": "conv4-strided", "channels": 4}, characters(), ("float64",),
    ),
    "FrozenBody": ("FrozenBody", {"channels": 4, "lr_schedule": "linear"}, characters(),
                   ("float64", "float32")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "dtype"), [(case, dtype) for case, rest in CASES.items() for dtype in rest[3]]
)
def test_ten_meta_updates_agree(case, dtype):
    method, params, sampler, _ = CASES[case]
    episodes = sampler.sample(9, 2)
    X_support, y_support, X_query, _ = episodes.task(0)
    runs = []
    for package in (course_torch, course_tf):
        learner = getattr(package, method)(
            iterations=10, n_tasks=3, dtype=dtype, random_state=0, **params
        ).fit(sampler, device="cpu")
        adapted = learner.adapt(X_support, y_support)
        outputs = getattr(adapted, "predict_proba", adapted.predict)(X_query)
        runs.append((learner.history_["loss"], learner.evaluate(episodes), outputs))
    for ours, theirs in zip(*runs, strict=True):
        assert np.abs(ours - theirs).max() <= AFTER_TEN[dtype] * np.abs(ours).max()
