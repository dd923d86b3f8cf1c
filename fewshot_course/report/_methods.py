"""Which methods fit which kind of data, the simplest first."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fewshot_course.data.minilm import locate_minilm
from fewshot_course.report._model import (
    EXTRAS,
    Course,
    Encoded,
    Flat,
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

MAJORITY = "majority class"
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
    """

    name: str
    what: str
    features: Callable[[], Any]
    head: Callable[[int], Any]
    unlabelled: bool = False
    slow: bool = False
    last_only: bool = False

    def model(self, examples: Examples, seed: int) -> Model:
        """Return an unfitted model."""
        return Model(
            examples.kind, examples.class_names, self.features(), self.head(seed), self.name
        )


def methods_for(examples: Examples, framework: str, encoder: str) -> tuple[list[Method], list[str]]:
    """Return the methods, the simplest first, and what is left out with the reason.

    Args:
        examples: what the user brought.
        framework: "torch" or "tensorflow", for the encoder and the methods of the course.
        encoder: for texts: "auto" (minilm, if its files are at hand), "off", or a folder with a
            BERT in Hugging Face's format.
    """
    chance = Method(
        MAJORITY, "always the commonest class; looks at nothing", Nothing, lambda _: Majority()
    )
    if examples.kind == "texts":
        learned, last, missing = _text_methods(framework, encoder)
    else:
        last = Standard if examples.kind == "vectors" else Flat
        learned, missing = _baselines(last, "" if examples.kind == "vectors" else "of pixels"), []
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
    return [chance, *learned], missing


def _baselines(features: Callable[[], Any], of: str, where: str = "", C: float = 1.0) -> list[Any]:
    space = f" {of}" if of else ""
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
            f"a weighted sum{space} for each class, by scikit-learn",
            features,
            lambda _: Logistic(C),
        ),
    ]


def _text_methods(
    framework: str, encoder: str
) -> tuple[list[Method], Callable[[], Any] | None, list[str]]:
    words = _baselines(Words, "of TF-IDF weights", " (words)", C=10.0)
    reason = _why_no_encoder(framework, encoder)
    if reason:
        return words, None, [reason]
    shared = Encoded(framework, "minilm" if encoder == "auto" else encoder)

    def features() -> Encoded:
        return shared  # it learns nothing, and knows the texts of before

    mean, _, probe = _baselines(features, "of a pretrained encoder's features", " (encoder)", 10.0)
    return [*words, mean, probe], features, []


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
