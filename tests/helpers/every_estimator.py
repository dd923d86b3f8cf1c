"""Every estimator of the course, small and soon fitted: for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiny_bert

from fewshot_course.data import EpisodeSampler
from fewshot_course.frameworks import framework_module

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)), np.arange(40) % 2
FEW = np.where(np.arange(40) < 12, Y, -1)
IMAGES = RNG.uniform(size=(24, 8, 8)).astype(np.float32)
PLAIN = {"steps": 3, "batch_size": 8, "random_state": 0}
META = {"network": "mlp", "hidden": (5,), "iterations": 2, "n_tasks": 2, "random_state": 0}
DOMAINS = {"network": "mlp", "latent_dim": 3, **PLAIN}


@dataclass(frozen=True)
class Fit:
    """An estimator that is made anew each time, and what it is fitted to."""

    make: Callable[[], Any]
    data: tuple[Any, ...]

    def __call__(self, **options: Any) -> Any:
        """Return a fitted estimator; ``options`` are further keywords of ``fit``."""
        return self.make().fit(*self.data, device="cpu", **options)


def fits(framework: str, bert: Any) -> dict[str, tuple[Fit, Any]]:
    """Name → what makes and fits it, and the examples that the result predicts.

    Args:
        framework: "torch" or "tensorflow".
        bert: folder of a small text encoder.
    """
    package = framework_module(framework)
    texts, of_texts = tiny_bert.texts_and_labels(12)
    sampler = EpisodeSampler(X, Y, 2, 2, 3)

    def of(name: str, *data: Any, **settings: Any) -> Fit:
        return Fit(lambda: getattr(package, name)(**settings), data)

    def compressed(name: str, teacher: Fit, *data: Any, **settings: Any) -> Fit:
        return Fit(lambda: getattr(package, name)(teacher(), random_state=0, **settings), data)

    images = of("ImageClassifier", IMAGES, Y[:24], channels=4, **PLAIN)
    tuned = of(
        "TextClassifier", texts, of_texts,
        model=bert, max_length=16, tune="full", epochs=1, batch_size=4, cache=False, random_state=0,
    )  # fmt: skip
    pseudo = {"random_state": 0, "steps": 3, "batch_size": 8, "unlabelled_batch_size": 8}
    return {
        "KLAdapter": (of("KLAdapter", X, Y, X + 1, FEW, **DOMAINS), X),
        "CORALAdapter": (of("CORALAdapter", X, Y, X + 1, FEW, **DOMAINS), X),
        "MMDAdapter": (of("MMDAdapter", X, Y, X + 1, FEW, **DOMAINS), X),
        "AdaBNAdapter": (
            of("AdaBNAdapter", IMAGES, Y[:24], IMAGES**2, FEW[:24],
               **DOMAINS | {"network": "conv4"}), IMAGES,
        ),
        "DANNAdapter": (
            of("DANNAdapter", X, Y, X + 1, FEW, discriminator_width=4, **DOMAINS), X,
        ),
        "KLIEP": (of("KLIEP", X, Y, X + 1, FEW, network="mlp", width=1.0, **PLAIN), X),
        "SelfTraining": (of("SelfTraining", X, FEW, network="mlp", **pseudo), X),
        "GANPseudoLabeler": (
            of("GANPseudoLabeler", X, FEW, latent_dim=3, hidden=(5,), generator_hidden=(5,),
               **pseudo), X,
        ),
        "VAEPseudoLabeler": (
            of("VAEPseudoLabeler", 1 / (1 + np.exp(-X)), FEW, latent_dim=3, hidden=(5,),
               feature_steps=3, **pseudo), 1 / (1 + np.exp(-X)),
        ),
        "GMMPseudoLabeler": (of("GMMPseudoLabeler", X, FEW, random_state=0), X),
        "ImageClassifier": (images, IMAGES),
        "DataParallelClassifier": (
            of("DataParallelClassifier", X, Y, workers=1, **PLAIN), X,
        ),
        "TextClassifier": (tuned, texts),
        "CompressedImageClassifier": (
            compressed("CompressedImageClassifier", images, IMAGES, Y[:24], channels=2, epochs=1),
            IMAGES,
        ),
        "CompressedTextClassifier": (
            compressed("CompressedTextClassifier", tuned, texts, of_texts, layers=1, epochs=1,
                       max_length=16),
            texts,
        ),
        **{
            name: (of(name, sampler, **META), None)
            for name in (
                "MAML", "FOMAML", "ANIL", "Reptile", "ProtoNet", "MatchingNet", "FrozenBody",
            )
        },
    }  # fmt: skip


def answer(estimator: Any, examples: Any) -> np.ndarray:
    """Return what an estimator says of examples: probabilities, or those of an adapted learner."""
    if examples is not None:
        return np.asarray(estimator.predict_proba(examples))
    return np.asarray(estimator.adapt(X[:4], Y[:4]).predict_proba(X[4:8]))
