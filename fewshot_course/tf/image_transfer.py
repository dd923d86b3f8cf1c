"""Transfer between image classes in TensorFlow: pretrain on some, fine-tune on a few of others.

The body of a network that was trained on many images of base classes makes features; a new head
learns the new classes from a few images, with the body frozen or tuned along.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import check_choice, check_features, check_labels, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.image_transfer import HEAD, TUNE, is_path, pretrained_body
from fewshot_course.both.pseudo_labels import check_classes, class_index
from fewshot_course.both.training import describe, hash_arrays
from fewshot_course.data import BatchStream
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import resolve_device, to_array, to_tensor, train
from fewshot_course.weights import part_of

__all__ = ["ImageClassifier"]

_BLOCK = 256  # images that pass the body at a time, outside of training


class ImageClassifier(CourseClassifier):
    """A network trained from scratch, or fine-tuned from one that knows other classes.

    The loss is the cross-entropy, lowered by AdamW (biases and normalisation weights are not
    decayed).  The head is always new, so the number of classes may differ from the pretrained
    one's; initial weights of a seed are the same whatever ``tune``.

    - ``tune="scratch"``: every weight starts at random; ``pretrained`` is ignored.
    - ``tune="full"``: the body starts as a copy of the pretrained one, and every weight is
      trained.  Batch norm normalises by the batch, and its running averages move.
    - ``tune="head"``: the body is copied and stays as it is, batch norm with its running
      averages; the features are computed once, and the head alone is trained on them.

    Args:
        network: "conv4", "mlp", a zero-argument factory of a model with ``features(x)`` and a
            linear layer ``head``, or ``None`` (by the shape of X).
        tune: "scratch", "full" or "head".
        pretrained: a fitted :class:`ImageClassifier`, or the path of its file (written in
            either framework); needed by "full" and "head".
        channels: width of "conv4".
        steps: number of updates.
        batch_size: examples in a step; all of them where there are fewer.
        lr: AdamW's learning rate.
        head_lr: that of the head, which is new and has further to go than a pretrained body;
            ``None``: ``lr``.
        weight_decay: w; a decayed weight p shrinks by lr·w·p in a step.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained network.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one example.
        history_: "loss" → ``(steps,)``.
    """

    network_: Any  # a network with ``features`` and ``head``, which no common type declares

    def __init__(
        self,
        network: str | Callable[[], keras.Model] | None = "conv4",
        tune: str = "scratch",
        pretrained: ImageClassifier | str | os.PathLike[str] | None = None,
        channels: int = 64,
        steps: int = 300,
        batch_size: int = 64,
        lr: float = 1e-3,
        head_lr: float | None = None,
        weight_decay: float = 0.01,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.tune = tune
        self.pretrained = pretrained
        self.channels = channels
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.head_lr = head_lr
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.random_state = random_state

    def __sklearn_clone__(self) -> Self:
        """Clone without unfitting ``pretrained``, which scikit-learn would clone too."""
        return type(self)(**self.get_params(deep=False))

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on labelled images.

        Args:
            X: images ``(n, h, w[, c])`` in [0, 1], or vectors ``(n, d)`` for "mlp".
            y: labels ≥ 0, ``(n,)``.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for NaN, a single class, arrays that do not fit together, a pretrained
                network that is missing or does not fit, or a hyper-parameter out of range.
            TypeError: for a ``pretrained`` that is no such estimator.
        """
        self._check_parameters()
        X = check_features("X", X)
        y = check_labels("y", y, n=len(X))
        self.classes_ = check_classes(y)
        self.input_shape_ = tuple(X.shape[1:])
        body: dict[str, np.ndarray] = {}
        if self.tune != "scratch":
            body = pretrained_body(self.pretrained, ImageClassifier, self.input_shape_)
        streams = Streams.from_seed(self.random_state)
        device = resolve_device(device)
        self._build(streams.init, device)
        self._copy_body(body)
        self.history_ = self._train(
            X, class_index(y, self.classes_), body, streams,
            device=device, progress=progress, log_dir=log_dir, checkpoint_dir=checkpoint_dir,
        )  # fmt: skip
        return self

    def _build(self, rng: np.random.Generator, device: str) -> None:
        shape, outputs = self.input_shape_, len(self.classes_)
        with tf.device(device), networks.layer_dtype(self.dtype):
            if self.network == "conv4" and len(shape) >= 2:
                network = networks.initialise(networks.Conv4(shape, outputs, self.channels), rng)
            else:
                network = networks.build(self.network, shape, outputs, rng, self.dtype)
        missing = [name for name in ("features", "head") if not hasattr(network, name)]
        if missing:
            raise ValueError(
                f"the network factory's model has no {' and no '.join(missing)}; it must make "
                f"features by features(x) and classify them by a linear layer head."
            )
        self.network_ = network
        self._device = device

    def _copy_body(self, body: Mapping[str, np.ndarray]) -> None:
        if not body:
            return
        weights = networks.to_numpy(self.network_)
        head = {name: value for name, value in weights.items() if name.startswith(HEAD)}
        try:
            networks.from_numpy(self.network_, {**body, **head})
        except ValueError as error:
            raise ValueError(
                f"pretrained has another body than network={self.network!r} with "
                f"channels={self.channels}: {error}"
            ) from error

    def _train(
        self,
        X: np.ndarray,
        labels: np.ndarray,
        body: Mapping[str, np.ndarray],
        streams: Streams,
        *,
        device: str,
        progress: bool,
        log_dir: str | os.PathLike[str] | None,
        checkpoint_dir: str | os.PathLike[str] | None,
    ) -> dict[str, np.ndarray]:
        network = self.network_
        frozen = self.tune == "head"
        # With a frozen body the features never change, so that the head is all that is run.
        inputs = to_tensor(self._features(X) if frozen else X, device, self.dtype)
        targets = to_tensor(labels, device)
        batches = BatchStream(len(X), self.batch_size, streams.batches)
        parameters = {"head": network.head.trainable_variables}
        if not frozen:
            of_head = {id(variable) for variable in parameters["head"]}
            every = network.trainable_variables
            parameters["body"] = [variable for variable in every if id(variable) not in of_head]
        optimizers = {
            name: optim.adamw(part, lr=self._rate(name), weight_decay=self.weight_decay)
            for name, part in parameters.items()
        }

        @tf.function(reduce_retracing=True, autograph=False)
        def update(i: tf.Tensor) -> dict[str, tf.Tensor]:
            x = tf.gather(inputs, i)
            with tf.GradientTape() as tape:
                logits = network.head(x) if frozen else network(x, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    tf.gather(targets, i), logits
                )
                loss = tf.reduce_mean(losses)
            for name, gradients in tape.gradient(loss, parameters).items():
                optimizers[name].apply(gradients)
            return {"loss": loss}

        def step(number: int) -> Mapping[str, tf.Tensor]:
            return update(to_tensor(batches.next(), device))

        params = {k: v for k, v in self.get_params(deep=False).items() if k != "pretrained"}
        return train(
            step,
            steps=self.steps,
            modules={"network": network},
            optimizers=optimizers,
            resumables={"streams": streams, "batches": batches},
            fingerprint={
                "method": type(self).__name__,
                "params": describe(params),
                "data": hash_arrays(X, labels, *body.values()),
            },
            device=device,
            progress=progress,
            log_dir=log_dir,
            checkpoint_dir=checkpoint_dir,
        )

    def _rate(self, part: str) -> float:
        return self.lr if part == "body" or self.head_lr is None else self.head_lr

    def _features(self, X: np.ndarray) -> np.ndarray:
        """Run the body on checked examples, batch norm with its running averages."""
        blocks = [X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK)]
        tensors = (to_tensor(block, self._device, self.dtype) for block in blocks)
        return np.concatenate([to_array(self.network_.features(x)) for x in tensors])

    def transform(self, X: Any) -> np.ndarray:
        """Return what the body makes of the examples: features ``(n, d)``."""
        check_is_fitted(self)
        return self._features(check_features("X", X, like=self.input_shape_))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)``, in the order of ``classes_``."""
        features = self.transform(X)
        return to_array(tf.nn.softmax(self.network_.head(to_tensor(features, self._device))))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted network into one file; an estimator ``pretrained`` is left out.

        What was learned from is in the weights; the loaded copy predicts, but to ``fit`` again
        with ``tune="full"`` or ``"head"`` it has to be given ``pretrained`` anew.

        Args:
            path: the file; its folder must exist.

        Raises:
            NotFittedError: if ``fit`` has not been called.
            TypeError: if ``network`` is the user's own factory, which no file can hold.
        """
        portable = copy.copy(self)
        portable.pretrained = str(self.pretrained) if is_path(self.pretrained) else None
        return CourseClassifier.save(portable, path)

    def _check_parameters(self) -> None:
        check_choice("tune", self.tune, TUNE)
        if self.tune != "scratch" and self.pretrained is None:
            raise ValueError(
                f"tune={self.tune!r} needs pretrained: a fitted ImageClassifier or its file."
            )
        check_number("channels", self.channels, low=1, integer=True)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        if self.head_lr is not None:
            check_number("head_lr", self.head_lr, low=0, low_open=True)
        check_number("weight_decay", self.weight_decay, low=0)
        check_choice("dtype", self.dtype, ["float32", "float64"])

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        return {f"network.{k}": v for k, v in networks.to_numpy(self.network_).items()}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._build(np.random.default_rng(0), "cpu")
        networks.from_numpy(self.network_, part_of(arrays, "network"))
