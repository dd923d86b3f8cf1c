"""Learning from few labels with a K+1-class GAN (Salimans et al. 2016): what is asked."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import UNLABELLED, check_choice, check_features, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.generative import (
    GenerativeLabeler,
    check_training,
    check_widths,
    one_hot,
)
from fewshot_course.both.training import Progress, Run

WIDTHS = {"mlp": ((500, 250, 250), (500, 500)), "conv": ((32, 64), (64, 32))}
"""Network → usual widths of discriminator and generator."""


class GANPseudoLabeler(GenerativeLabeler):
    """A K+1-class discriminator that learns classes from few labels (Salimans et al. 2016).

    A step makes one batch of samples, lowers ``supervised + weight · unsupervised`` of
    ``discriminator_loss`` for the discriminator, and then for the generator

        generator_loss + class_weight · CE(logits of G(z, y), y).

    Args:
        network: "mlp" (fully connected) or "conv" (small convolutions, for images).
        latent_dim: size of the generator's noise, ≥ 1.
        hidden: widths of the discriminator's hidden layers; ``None``: (500, 250, 250) for "mlp",
            (32, 64) channels for "conv".
        generator_hidden: the same of the generator; ``None``: (500, 500), or (64, 32) channels.
        generator_loss: "feature_matching" or "plain", see ``feature_matching_loss`` and
            ``plain_generator_loss``.
        class_weight: > 0 makes the generator class-conditional; 0: it knows no class.
        weight: of the unsupervised loss, ≥ 0.
        input_noise: standard deviation of Gaussian noise on the discriminator's input.
        hidden_noise: the same on its hidden layers.
        steps: number of updates of both networks.
        batch_size: labelled examples in a step.
        unlabelled_batch_size: unlabelled, and generated, examples in a step, ≥ 2.
        lr: Adam's learning rate, of both networks; its first decay is 0.5.
        decay: part of the steps, the last, over which the rate falls to 0, in [0, 1].
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the discriminator.
        generator_: the generator.
        classes_: labels, ``(K,)`` int64.
        input_shape_: shape of one example.
        pseudo_labels_: class of each example given to ``fit``, ``(n,)``; known labels as given.
        confidence_: probability of that class, ``(n,)`` in [0, 1]; 1 where the label is known.
        history_: name → array ``(steps,)``: "loss" (of both networks, added up), "supervised",
            "unsupervised", "generator".
    """

    _arrays = ("classes_", "pseudo_labels_", "confidence_")
    network_: Any  # the networks take a batch and noise, and return tensors
    generator_: Any

    def __init__(
        self,
        network: str = "mlp",
        latent_dim: int = 100,
        hidden: tuple[int, ...] | None = None,
        generator_hidden: tuple[int, ...] | None = None,
        generator_loss: str = "feature_matching",
        class_weight: float = 0.0,
        weight: float = 1.0,
        input_noise: float = 0.3,
        hidden_noise: float = 0.5,
        steps: int = 1000,
        batch_size: int = 50,
        unlabelled_batch_size: int = 100,
        lr: float = 1e-3,
        decay: float = 0.5,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.generator_hidden = generator_hidden
        self.generator_loss = generator_loss
        self.class_weight = class_weight
        self.weight = weight
        self.input_noise = input_noise
        self.hidden_noise = hidden_noise
        self.steps = steps
        self.batch_size = batch_size
        self.unlabelled_batch_size = unlabelled_batch_size
        self.lr = lr
        self.decay = decay
        self.dtype = dtype
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        classes: Any = None,
        device: str = "auto",
        progress: Progress = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train discriminator and generator in turns.

        Args:
            X: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y: labels ≥ 0, and -1 where unknown, ``(n,)``.
            classes: all the labels there are; the classes found in ``y`` if not given.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar, or a function that is told of each update:
                it gets how many are done, and name → value of the last one's losses.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for NaN, integer images, no labelled example at all or of a class, a
                single class, no unlabelled example, arrays that do not fit together, or a
                hyper-parameter out of range.
            FloatingPointError: if the loss of one of the networks becomes NaN or infinite.
        """
        flat, y, labels = self._prepare(X, y, classes)
        if (labels != UNLABELLED).all():
            raise ValueError("y has no unlabelled example (-1); a GAN needs some.")
        streams = Streams.from_seed(self.random_state)
        run = Run(self._resolve(device), progress, log_dir, checkpoint_dir)
        self._device = run.device
        self._build(streams.init, run.device)
        self.history_ = self._learn(flat, labels, streams, run)
        self._note_pseudo_labels(X, y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, K)`` given that an example is real."""
        return self._apply("probabilities", self._checked(X))

    def real_probability(self, X: Any) -> np.ndarray:
        """Return D(x), how probably the discriminator takes an example for real, ``(n,)``."""
        return self._apply("real", self._checked(X))

    def sample(
        self, n: int, y: Any = None, random_state: int | None = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make new examples with their classes.

        Args:
            n: how many.
            y: a class, or one for each, ``(n,)``; ``None``: equally many of each.  A generator
                that was trained with ``class_weight=0`` cannot choose: its samples have the
                class that the discriminator sees in them.
            random_state: seed of the noise.

        Returns:
            Examples ``(n, *input_shape)``, and classes ``(n,)``.

        Raises:
            ValueError: for an unknown class, or any class where the generator knows none.
        """
        check_is_fitted(self, "generator_")
        rng = np.random.default_rng(random_state)
        if not self.class_weight and y is not None:
            raise ValueError("y cannot be chosen: with class_weight=0 the generator knows no class")
        index = self._wanted_classes(n, y, rng)
        z = rng.standard_normal((n, self.latent_dim))
        told = one_hot(index, len(self.classes_))
        made = self._apply("samples", np.hstack([z, told]) if self.class_weight else z)
        made = made.reshape(n, *self.input_shape_)
        return made, self.classes_[index] if self.class_weight else self.predict(made)

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "generator_")
        return check_features("X", X, like=self.input_shape_)

    def _widths(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the widths of discriminator and generator."""
        usual, usual_of_generator = WIDTHS[self.network]
        return (
            check_widths("hidden", usual if self.hidden is None else self.hidden),
            check_widths(
                "generator_hidden",
                usual_of_generator if self.generator_hidden is None else self.generator_hidden,
            ),
        )

    def _check_parameters(self) -> None:
        check_choice("network", self.network, ["mlp", "conv"])
        check_choice("generator_loss", self.generator_loss, ["feature_matching", "plain"])
        check_training(self)
        check_number("class_weight", self.class_weight, low=0)
        check_number("weight", self.weight, low=0)
        check_number("input_noise", self.input_noise, low=0)
        check_number("hidden_noise", self.hidden_noise, low=0)
        check_number("decay", self.decay, low=0, high=1)
