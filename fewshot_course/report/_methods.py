"""Which methods fit which kind of data, the simplest first."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import fewshot_course
from fewshot_course.data.minilm import locate_minilm
from fewshot_course.report._model import (
    EXTRAS,
    Adapted,
    Characters,
    Colours,
    ColoursGradients,
    Course,
    Encoded,
    Flat,
    Ink,
    Kernel,
    Logistic,
    Majority,
    Model,
    NearestMean,
    Neighbours,
    Nothing,
    Standard,
    Words,
    is_installed,
)
from fewshot_course.report._read import Examples
from fewshot_course.report._rule import leads_of

MAJORITY = "majority class"
UNEVEN = 3
"""The largest class has so many times the examples of the smallest: then the mean over the classes
decides, and methods that can weigh the classes do."""
MOST_TUNED = 1500
UNREAD, MOST_PIECES = 0.05, 1.4
"""Share of unknown pieces, and pieces of a word, from which a text is foreign to an encoder."""
SMALLEST_SIDE = 16
"""Smaller images have no cells for gradients."""
NETWORK = "omniglot-protonet-5shot-seed0.safetensors"
STEPS = 300
"""Training steps of a network, as in the experiment ``pseudo-labels``."""


@dataclass(frozen=True)
class Method:
    """One way to learn.

    Attributes:
        name: short, unique.
        what: one line of explanation.
        features: gives unfitted features.
        head: gives an unfitted head, from a seed.
        unlabelled: whether it uses unlabelled examples.
        slow: whether it trains by gradient or EM, and so gets fewer draws.
        last_only: whether it is so slow that it runs with all examples only.
        lead: how far it is ahead of the mean of the methods on public data, in shares.
        most: labelled examples with which it still ends in time; ``None``: any number.
    """

    name: str
    what: str
    features: Callable[[], Any]
    head: Callable[[int], Any]
    unlabelled: bool = False
    slow: bool = False
    last_only: bool = False
    most: int | None = None
    lead: float = 0.0

    def model(self, examples: Examples, seed: int) -> Model:
        """Return an unfitted model."""
        return Model(
            examples.kind, examples.class_names, self.features(), self.head(seed), self.name,
            examples.columns, examples.table,
        )  # fmt: skip


def methods_for(examples: Examples, framework: str, encoder: str) -> tuple[list[Method], list[str]]:
    """Return the methods, the simplest first, and what is left out with the reason.

    Args:
        examples: what the user brought.
        framework: "torch" or "tensorflow", for the encoder and the methods of the course.
        encoder: for texts: "auto" (minilm, if its files are at hand), "off", or a folder with a
            BERT in Hugging Face's format.
    """
    balanced = uneven(examples.counts)
    chance = Method(
        MAJORITY, "always the commonest class; looks at nothing", Nothing, lambda _: Majority()
    )
    last: Callable[[], Any] | None
    if examples.kind == "texts":
        learned, last, missing = _text_methods(framework, encoder, balanced)
    elif examples.kind == "images":
        learned, missing = _image_methods(examples, framework, balanced)
        last = Flat
    else:
        learned = [*_baselines(Standard, balanced=balanced), _tuned(Standard, "", balanced)]
        last, missing = Standard, []
    unlabelled = len(examples.unknown)
    if unlabelled and last is None:
        missing.append(
            "Your unlabelled texts were not used: the semi-supervised methods need the encoder."
        )
    elif unlabelled and not is_installed(framework):
        missing.append(
            f"Your unlabelled examples were not used: that needs {framework}. Install it with "
            f"pip install 'fewshot-course[{EXTRAS[framework]}]'."
        )
    elif unlabelled and last is not None:
        learned += _semi_supervised(last, framework)
    if len(examples.known) > MOST_TUNED and any(m.most is not None for m in learned):
        learned = [m for m in learned if m.most is None]
        missing.append(
            f"The tuned kernel machine was left out: with more than {MOST_TUNED:,} labelled "
            f"examples it takes too long here."
        )
    foreign = isinstance(examples.X, list) and any(
        _is_foreign(f, examples.X) for m in learned if isinstance(f := m.features(), Encoded)
    )
    names = [m.name for m in learned]
    # The images of the study are all of writing: they say nothing of photos.
    photos = examples.kind == "images" and not written(examples.X)
    leads = dict.fromkeys(names, 0.0) if photos else leads_of(names, foreign)
    return [chance, *(replace(m, lead=leads[m.name]) for m in learned)], missing


def _is_foreign(encoder: Encoded, texts: list[str]) -> bool:
    """Say whether an encoder does not know the language: it falls into many or unknown pieces."""
    unknown, _, pieces = encoder.unread(texts)
    return unknown > UNREAD or pieces > MOST_PIECES


def written(X: Any) -> bool:
    """Say whether images look like writing: grey, and most pixels near the ends of the scale."""
    if np.ndim(X) != 3:
        return False
    flat = np.asarray(X[:200]).reshape(min(200, len(X)), -1)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    level = (flat - low) / np.maximum(high - low, 1e-9)
    return bool(((level < 0.15) | (level > 0.85)).mean() > 0.5)


def uneven(counts: Any) -> bool:
    """Say whether classes are so uneven that the mean over the classes decides."""
    return bool(counts.max() >= UNEVEN * counts.min())


def _baselines(
    features: Callable[[], Any], of: str = "", where: str = "", C: float = 1.0,
    balanced: bool = False,
) -> list[Any]:  # fmt: skip
    space = f" {of}" if of else ""
    weights = "; every class weighs the same" if balanced else ""
    return [
        Method(
            f"nearest class mean{where}",
            f"the class whose mean{space} is nearest",
            features,
            lambda _: NearestMean(),
        ),
        Method(
            f"nearest neighbours{where}",
            "the commonest class of the 3 nearest examples (of 1, while a class has fewer than 3)",
            features,
            lambda _: Neighbours(),
        ),
        Method(
            f"logistic regression{where}",
            f"a weighted sum{space} for each class, by scikit-learn{weights}",
            features,
            lambda _: Logistic(C, balanced),
        ),
    ]


def _tuned(features: Callable[[], Any], where: str, balanced: bool) -> Method:
    return Method(
        f"tuned kernel machine{where}",
        "ridge regression on a Gaussian kernel; width and penalty by leave-one-out on the "
        "examples that it learns from",
        features,
        lambda _: Kernel(balanced),
        most=MOST_TUNED,
    )


def _text_methods(
    framework: str, encoder: str, balanced: bool
) -> tuple[list[Method], Callable[[], Any] | None, list[str]]:
    words = _baselines(Words, "of TF-IDF weights", " (words)", 10.0, balanced)
    letters = _baselines(
        Characters, "of TF-IDF weights of 1 to 4 characters", " (characters)", 10.0, balanced
    )
    plain = [*words, letters[0], letters[2]]
    reason = _why_no_encoder(framework, encoder)
    if reason:
        return plain, None, [reason]
    shared = Encoded(framework, "minilm" if encoder == "auto" else encoder)

    def features() -> Encoded:
        return shared  # it learns nothing, and knows the texts of before

    mean, _, probe = _baselines(
        features, "of a pretrained encoder's features", " (encoder)", 10.0, balanced
    )
    return [*plain, mean, probe, _tuned(features, " (encoder)", balanced)], features, []


def _image_methods(
    examples: Examples, framework: str, balanced: bool
) -> tuple[list[Method], list[str]]:
    methods = _baselines(Flat, "of pixels", " (pixels)", 1.0, balanced)
    missing = []
    shape = np.shape(examples.X)[1:]
    small = min(shape[:2]) < SMALLEST_SIDE
    if len(shape) == 3 and shape[2] == 3:
        methods.append(_shared(Colours(), "a histogram of colours", " (colours)", balanced)[2])
    if importlib.util.find_spec("skimage") is None:
        missing.append(
            "Histograms of gradients were not used: that needs scikit-image. Install it with "
            "pip install 'fewshot-course[report]'. For photos they often help most."
        )
    elif not small:
        both = _shared(
            ColoursGradients(), "histograms of colours and gradients", " (colours, gradients)",
            balanced,
        )  # fmt: skip
        tuned = both[2].features
        methods += [both[0], both[2], _tuned(tuned, " (colours, gradients)", balanced)]
    if not written(examples.X):
        return methods, missing
    network = Path(fewshot_course.__file__).parents[1] / "results" / "networks" / NETWORK
    if not network.is_file():
        missing.append(
            "The course's own network for characters was not used: it is part of a clone of the "
            "course, not of the installed package."
        )
    elif not is_installed(framework):
        missing.append(f"The course's own network for characters was not used: no {framework}.")
    else:
        ink = Ink()
        methods.append(
            Method(
                "prototypical network (characters)",
                "nearest class mean in the space of a network that the course trained on "
                "handwritten characters of Omniglot",
                lambda: ink,
                lambda _: Adapted(framework, network),
                slow=True,
                last_only=True,
            )
        )
    return methods, missing


def _shared(features: Any, of: str, where: str, balanced: bool) -> list[Any]:
    return _baselines(lambda: features, of, where, 10.0, balanced)


def _why_no_encoder(framework: str, encoder: str) -> str:
    """Return why the pretrained encoder is not used; empty if it is."""
    if encoder == "off":
        return "The pretrained encoder was switched off."
    if not is_installed(framework):
        return (
            f"The pretrained encoder was not used: that needs {framework}. Install it with "
            f"pip install 'fewshot-course[{EXTRAS[framework]},text]'. For texts it is often what "
            f"helps most."
        )
    if importlib.util.find_spec("tokenizers") is None:
        return (
            "The pretrained encoder was not used: that needs the package tokenizers. Install it "
            "with pip install 'fewshot-course[text]'."
        )
    if encoder == "auto" and locate_minilm() is None:
        return (
            "The pretrained encoder was not used: its files (91 MB) are not on this machine. "
            "Fetch them once with python -c 'from fewshot_course.data.minilm import "
            "minilm_folder; minilm_folder()' and run the report again."
        )
    return ""


def _semi_supervised(features: Callable[[], Any], framework: str) -> list[Method]:
    def network(weight: float) -> Callable[[int], Any]:
        # The settings of the experiment `pseudo-labels`; nothing was tuned on these data.
        def make(seed: int) -> Course:
            params = {"network": "mlp", "weight": weight, "steps": STEPS, "random_state": seed}
            return Course(framework, "SelfTraining", params)

        return make

    def mixture(seed: int) -> Course:
        params = {"covariance_type": "tied", "n_pca": 30, "random_state": seed}
        return Course(framework, "GMMPseudoLabeler", params)

    return [
        Method(
            "Gaussian mixture",
            "a Gaussian a class, fitted by EM to labelled and unlabelled examples",
            features,
            mixture,
            unlabelled=True,
            slow=True,
        ),
        Method(
            "network, labels alone",
            "a small neural network that does not see the unlabelled examples",
            features,
            network(0.0),
            slow=True,
            last_only=True,
        ),
        Method(
            "self-training",
            "the same network, trained on its own guesses for the unlabelled examples too",
            features,
            network(1.0),
            unlabelled=True,
            slow=True,
            last_only=True,
        ),
    ]
