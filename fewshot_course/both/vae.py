"""Learning from few labels with variational autoencoders (Kingma et al. 2014): what is asked."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import check_choice, check_features, check_number, check_pair
from fewshot_course._streams import Streams
from fewshot_course.both.generative import (
    GenerativeLabeler,
    check_training,
    check_unit_interval,
    check_widths,
    one_hot,
)
from fewshot_course.both.optim import ramp
from fewshot_course.both.training import Progress, Run


class VAEPseudoLabeler(GenerativeLabeler):
    """Learn from few labels with a variational autoencoder (Kingma et al. 2014).

    - "m1": a VAE learns codes z from all examples; a classifier learns from the labelled codes.
    - "m2": the label is a latent variable.  A step lowers

          -[l·mean L(x, y) + u·mean U(x)] / (l + u) + classifier_weight · CE(labelled)

      with the bounds L on log p(x, y) of l labelled examples and U on log p(x) of u unlabelled
      ones, see ``unlabelled_bound``.
    - "m1m2": M2 on the codes of M1.

    Args:
        model: "m1", "m2" or "m1m2".
        latent_dim: size of a code, ≥ 1.
        hidden: widths of the hidden layers of encoder, classifier and (reversed) decoder.
        decoder: "bernoulli", "gaussian", or ``None``: Bernoulli for images, else Gaussian.  A
            Gaussian decoder expects features of about unit scale.
        noise_bounds: smallest and largest standard deviation of a Gaussian decoder.
        classifier_weight: α, what the cross-entropy of the labels counts in M2, ≥ 0.
        kl_weight: final weight of the KL; 1 is the bound.
        kl_warmup: part of the steps over which the weight of the KL rises from 0, in [0, 1];
            without, the decoder may learn to ignore z before z says anything.
        feature_steps: updates of M1's VAE ("m1", "m1m2").
        steps: updates with labels: of M1's classifier, or of M2.
        batch_size: labelled examples in a step.
        unlabelled_batch_size: unlabelled examples in a step; all kinds in a step of M1's VAE.
        lr: Adam's learning rate.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        features_: M1's ``VAE``, or ``None``.
        vae_: M2's ``VAE``, or ``None``.
        classifier_: the network of q(y|x), or q(y|z) on codes of M1.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one example.
        pseudo_labels_: class of each example given to ``fit``, ``(n,)``; known labels as given.
        confidence_: probability of that class, ``(n,)`` in [0, 1]; 1 where the label is known.
        history_: name → array ``(steps,)``: "loss", "classifier_loss", and for M2
            "labelled_bound" and "unlabelled_bound".
        feature_history_: name → array ``(feature_steps,)``: "loss" (minus the bound), "kl",
            "kl_weight"; empty for M2.
    """

    _arrays = ("classes_", "pseudo_labels_", "confidence_")
    feature_history_: dict[str, np.ndarray]
    features_: Any  # networks or None, as the model needs them
    vae_: Any
    classifier_: Any

    def __init__(
        self,
        model: str = "m2",
        latent_dim: int = 50,
        hidden: tuple[int, ...] = (500,),
        decoder: str | None = None,
        noise_bounds: tuple[float, float] = (0.1, 2.0),
        classifier_weight: float = 50.0,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.2,
        feature_steps: int = 1000,
        steps: int = 1000,
        batch_size: int = 32,
        unlabelled_batch_size: int = 100,
        lr: float = 1e-3,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.model = model
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.decoder = decoder
        self.noise_bounds = noise_bounds
        self.classifier_weight = classifier_weight
        self.kl_weight = kl_weight
        self.kl_warmup = kl_warmup
        self.feature_steps = feature_steps
        self.steps = steps
        self.batch_size = batch_size
        self.unlabelled_batch_size = unlabelled_batch_size
        self.lr = lr
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
        """Train on labelled and unlabelled examples together.

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
            ValueError: for NaN, integer images, values outside [0, 1] before a Bernoulli
                decoder, no labelled example at all or of a class, a single class, arrays that
                do not fit together, or a hyper-parameter out of range.
            FloatingPointError: if the loss becomes NaN or infinite.
        """
        flat, y, labels = self._prepare(X, y, classes)
        check_unit_interval(flat, self._decoder())
        streams = Streams.from_seed(self.random_state)
        run = Run(self._resolve(device), progress, log_dir, checkpoint_dir)
        self._device = run.device
        self._build(streams.init, run.device)
        self.feature_history_ = {}
        self.history_ = self._learn(flat, labels, streams, run)
        self._note_pseudo_labels(X, y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)``, in the order of ``classes_``."""
        return self._apply("probabilities", self._flat(X))

    def encode(self, X: Any) -> np.ndarray:
        """Return the mean codes of q(z|x), ``(n, latent_dim)``.

        M1 and M1+M2: codes of M1.  M2: codes of q(z|x, y) with the most probable class y.
        """
        return self._apply("codes", self._flat(X))

    def reconstruct(self, X: Any) -> np.ndarray:
        """Return the decoder's mean at the mean codes, shaped like ``X``."""
        return self._apply("means", self._flat(X)).reshape(-1, *self.input_shape_)

    def bound(self, X: Any, samples: int = 1) -> np.ndarray:
        """Return a lower bound on log p(x) of each example in nats, ``(n,)``.

        M1 and M1+M2: the ELBO of M1.  M2: its bound for unlabelled examples.  The noise is
        fixed.

        Args:
            X: examples.
            samples: codes drawn for each, ≥ 1.
        """
        check_number("samples", samples, low=1, integer=True)
        return self._apply("bound", self._flat(X), samples)

    def sample(
        self, n: int, y: Any = None, random_state: int | None = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make new examples with their classes.

        Args:
            n: how many.
            y: a class, or one for each, ``(n,)``; ``None``: equally many of each.  M1 cannot
                choose: its samples have the class that the classifier sees in them.
            random_state: seed of the noise.

        Returns:
            Means of p(x|z, y) ``(n, *input_shape)``, and classes ``(n,)``.

        Raises:
            ValueError: for an unknown class, or any class asked of M1.
        """
        check_is_fitted(self, "classifier_")
        rng = np.random.default_rng(random_state)
        if self.model == "m1" and y is not None:
            raise ValueError("y cannot be chosen with model='m1', whose decoder knows no label.")
        index = self._wanted_classes(n, y, rng)
        z = rng.standard_normal((n, self.latent_dim))
        x = self._apply("samples", np.hstack([z, one_hot(index, len(self.classes_))]))
        if self.model == "m1":
            index = self._apply("logits_of_codes", z).argmax(axis=1)
        return x.reshape(n, *self.input_shape_), self.classes_[index]

    def _decoder(self) -> str:
        return self.decoder or ("bernoulli" if len(self.input_shape_) > 1 else "gaussian")

    def _kl_weight(self, step: int, steps: int) -> float:
        return float(self.kl_weight) * ramp(step, steps, self.kl_warmup)

    def _flat(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "classifier_")
        checked = check_features("X", X, like=self.input_shape_)
        return checked.reshape(len(checked), -1)

    def _check_parameters(self) -> None:
        check_choice("model", self.model, ["m1", "m2", "m1m2"])
        check_training(self)
        check_widths("hidden", self.hidden)
        if self.decoder is not None:
            check_choice("decoder", self.decoder, ["bernoulli", "gaussian"])
        low, high = check_pair("noise_bounds", self.noise_bounds)
        check_number("noise_bounds[0]", low, low=0, low_open=True)
        check_number("noise_bounds[1]", high, low=low, low_open=True)
        check_number("classifier_weight", self.classifier_weight, low=0)
        check_number("kl_weight", self.kl_weight, low=0)
        check_number("kl_warmup", self.kl_warmup, low=0, high=1)
        check_number("feature_steps", self.feature_steps, low=1, integer=True)
