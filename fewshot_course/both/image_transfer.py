"""Transfer between image classes: what is asked, and what one classifier takes from another."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import check_choice, check_features, check_labels, check_number
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.pseudo_labels import check_classes, class_index
from fewshot_course.both.training import Progress, Run
from fewshot_course.weights import part_of

TUNE = ("scratch", "full", "head")
"""What is trained: a network of one's own, all of a pretrained one, or a new head on it."""

HEAD = "head."


def is_path(pretrained: Any) -> bool:
    """Tell a file's path from an estimator."""
    return isinstance(pretrained, str | os.PathLike)


def pretrained_body(
    pretrained: Any, kind: type[ImageClassifier], input_shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return the weights of a fitted classifier in canonical layout, without its head.

    Args:
        pretrained: a fitted ``ImageClassifier`` of either framework, or the path of the file that
            a ``kind`` was saved in.
        kind: the class that reads the file.
        input_shape: shape of one example that the body will see.

    Raises:
        TypeError: for something else.
        ValueError: for an estimator that is not fitted, or was fitted on another shape.
        FileNotFoundError: if there is no such file.
    """
    if is_path(pretrained):
        pretrained = kind.load(pretrained)
    if not isinstance(pretrained, ImageClassifier):
        raise TypeError(
            "pretrained must be a fitted ImageClassifier or the path of its file, "
            f"got {type(pretrained).__module__}.{type(pretrained).__name__}."
        )
    check_is_fitted(pretrained)
    if pretrained.input_shape_ != input_shape:
        raise ValueError(
            f"X has examples of shape {input_shape}, but pretrained was fitted on "
            f"{pretrained.input_shape_}."
        )
    arrays = part_of(pretrained._fitted_arrays(), "network")
    return {name: array for name, array in arrays.items() if not name.startswith(HEAD)}


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
        network: "conv4", "mlp", a zero-argument factory of a network with ``features(x)`` and a
            linear layer ``head``, or ``None`` (by the shape of X).
        tune: "scratch", "full" or "head".
        pretrained: a fitted ``ImageClassifier`` of either framework, or the path of its file;
            needed by "full" and "head".
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

    def __init__(
        self,
        network: str | Callable[[], Any] | None = "conv4",
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
        progress: Progress = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on labelled images.

        Args:
            X: images ``(n, h, w[, c])`` in [0, 1], or vectors ``(n, d)`` for "mlp".
            y: labels ≥ 0, ``(n,)``.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar, or a function that is told of each update:
                it gets how many are done, and name → value of the last one's losses.
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
        # Asked here: a file of a tuned network has none, and predicts without.
        if self.tune != "scratch" and self.pretrained is None:
            raise ValueError(
                f"tune={self.tune!r} needs pretrained: a fitted ImageClassifier or its file."
            )
        X = check_features("X", X)
        y = check_labels("y", y, n=len(X))
        self.classes_ = check_classes(y)
        self.input_shape_ = tuple(X.shape[1:])
        body: dict[str, np.ndarray] = {}
        if self.tune != "scratch":
            body = pretrained_body(self.pretrained, type(self), self.input_shape_)
        streams = Streams.from_seed(self.random_state)
        run = Run(self._resolve(device), progress, log_dir, checkpoint_dir)
        self._device = run.device
        self._build(streams.init, run.device)
        self._copy_body(body)
        self.history_ = self._learn(X, class_index(y, self.classes_), body, streams, run)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)``, in the order of ``classes_``."""
        proba: np.ndarray = self._apply("probabilities", self.transform(X))
        return proba

    def transform(self, X: Any) -> np.ndarray:
        """Return what the body makes of the examples: features ``(n, d)``."""
        check_is_fitted(self)
        X = check_features("X", X, like=self.input_shape_)
        features: np.ndarray = self._apply("features", X)
        return features

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

    def _rate(self, part: str) -> float:
        return self.lr if part == "body" or self.head_lr is None else self.head_lr

    def _check_parameters(self) -> None:
        check_choice("tune", self.tune, TUNE)
        check_number("channels", self.channels, low=1, integer=True)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        if self.head_lr is not None:
            check_number("head_lr", self.head_lr, low=0, low_open=True)
        check_number("weight_decay", self.weight_decay, low=0)
        check_choice("dtype", self.dtype, ["float32", "float64"])
