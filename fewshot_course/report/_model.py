"""Models of the report: features that need no labels, a simple head, and a file of their own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pandas as pd
from scipy import sparse, special

from fewshot_course import __version__
from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_features,
    check_labels,
    check_number,
)
from fewshot_course._reading import check_array, check_classes_array, check_shape, show
from fewshot_course.both.bert import find_bert
from fewshot_course.both.texts import check_texts, tokenise, unknown_piece
from fewshot_course.data.images import resize_images
from fewshot_course.frameworks import TextFeatures, check_framework, framework_module
from fewshot_course.report._read import read_images
from fewshot_course.report._table import Column, encode
from fewshot_course.weights import load_arrays, part_of, save_arrays

FORMAT = "fewshot_course.report_model/2"
EXTRAS = {"torch": "torch", "tensorflow": "tf"}
MOST_TOKENS = 128
PIXELS = 28

Arrays = dict[str, np.ndarray]
Facts = dict[str, Any]


class Part(Protocol):
    """Features or a head: what a file must hold of it."""

    def state(self) -> tuple[Arrays, Facts]:
        """Return its arrays and its JSON-able facts."""
        ...


# ---------------------------------------------------------------------------- features


class Nothing:
    """No features at all, for a head that looks at nothing."""

    def fit(self, X: Any) -> Nothing:
        """Learn nothing."""
        return self

    def __call__(self, X: Any) -> np.ndarray:
        """Return ``(n, 0)``."""
        return np.empty((len(X), 0))

    def state(self) -> tuple[Arrays, Facts]:
        """Return nothing: there is nothing to keep."""
        return {}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Nothing:
        """Return the same features."""
        return cls()


class Flat:
    """Arrays as they are, one row an example; images by area to at most 28 pixels a side."""

    def fit(self, X: Any) -> Flat:
        """Learn nothing."""
        return self

    def __call__(self, X: Any) -> np.ndarray:
        """Return ``(n, d)`` float64."""
        X = np.asarray(X)
        if X.ndim > 2 and max(X.shape[1:3]) > PIXELS:
            X = resize_images(X, (min(PIXELS, X.shape[1]), min(PIXELS, X.shape[2])))
        return X.reshape(len(X), -1).astype(np.float64)

    def state(self) -> tuple[Arrays, Facts]:
        """Return nothing: there is nothing to keep."""
        return {}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Flat:
        """Return the same features."""
        return cls()


class Standard:
    """Columns with mean 0 and standard deviation 1, measured where they are fitted.

    A missing value (NaN) becomes the median of its column, and a further feature says that it was
    missing.  By scikit-learn's ``SimpleImputer`` and ``StandardScaler``.
    """

    median: np.ndarray
    holes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def fit(self, X: Any) -> Standard:
        """Measure medians, means and spreads; a column without spread is only moved."""
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import StandardScaler

        X = np.asarray(X, dtype=np.float64)
        imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(X)
        self.median = np.asarray(imputer.statistics_)
        self.holes = np.flatnonzero(np.isnan(X).any(axis=0))
        scaler = StandardScaler().fit(self._filled(X))
        self.mean, self.scale = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
        return self

    def _filled(self, X: np.ndarray) -> np.ndarray:
        missing = np.isnan(X)
        return np.hstack([np.where(missing, self.median, X), missing[:, self.holes]])

    def __call__(self, X: Any) -> np.ndarray:
        """Return ``(n, d + columns with holes)`` float64."""
        return (self._filled(np.asarray(X, dtype=np.float64)) - self.mean) / self.scale

    def state(self) -> tuple[Arrays, Facts]:
        """Return medians, columns with holes, means and scales."""
        names = ("median", "holes", "mean", "scale")
        return {name: getattr(self, name) for name in names}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Standard:
        """Return the same features."""
        features = cls()
        features.median, features.holes = arrays["median"], arrays["holes"]
        features.mean, features.scale = arrays["mean"], arrays["scale"]
        check_array("median", features.median, "f", (None,))
        check_array("holes", features.holes, "i", (None,))
        n = len(features.median)
        if len(features.holes) and not 0 <= features.holes.min() <= features.holes.max() < n:
            raise ValueError("holes must be numbers of columns")
        check_array("mean", features.mean, "f", (n + len(features.holes),))
        check_array("scale", features.scale, "f", features.mean.shape)
        if (features.scale <= 0).any():
            raise ValueError("scale must be > 0")
        return features


class Seen:
    """Features of images that learn nothing, and know the images of before."""

    def __init__(self) -> None:
        self._known: dict[bytes, np.ndarray] = {}

    def fit(self, X: Any) -> Self:
        """Learn nothing."""
        return self

    def __call__(self, X: Any) -> np.ndarray:
        """Return ``(n, d)`` float64."""
        X = np.asarray(X, dtype=np.float32)
        keys = [hashlib.blake2b(x.tobytes()).digest() for x in X]
        for key, x in zip(keys, X, strict=True):
            if key not in self._known:
                self._known[key] = self.describe(x)
        return np.stack([self._known[key] for key in keys])

    def describe(self, x: np.ndarray) -> np.ndarray:
        """Return the features of one image."""
        raise NotImplementedError

    def state(self) -> tuple[Arrays, Facts]:
        """Return nothing: there is nothing to keep."""
        return {}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Self:
        """Return the same features."""
        return cls()


class Colours(Seen):
    """Square roots of a histogram of colours (4 levels a channel; 16 of grey), length 1."""

    def describe(self, x: np.ndarray) -> np.ndarray:
        """Return ``(64,)``, or ``(16,)`` of a grey image."""
        if x.ndim == 2 or x.shape[2] != 3:
            counts, _ = np.histogram(_brightness(x), bins=16, range=(0.0, 1.0))
        else:
            level = np.minimum((4 * x).astype(np.int64), 3).reshape(-1, 3)
            counts = np.bincount(level @ np.array([16, 4, 1]), minlength=64)
        return np.sqrt(counts / counts.sum())


class Gradients(Seen):
    """A histogram of oriented gradients, by scikit-image, of length 1 at most.

    Dalal & Triggs, "Histograms of oriented gradients for human detection", CVPR 2005: eight
    directions in cells of an eighth of the side, in blocks of 2 × 2 cells.
    """

    def describe(self, x: np.ndarray) -> np.ndarray:
        """Return ``(d,)`` for images of one size."""
        from skimage.feature import hog

        side = max(2, min(x.shape[:2]) // 8)
        values = hog(
            _brightness(x), orientations=8, pixels_per_cell=(side, side), cells_per_block=(2, 2)
        )
        return values / max(1.0, float(np.sqrt(np.square(values).sum())))


class ColoursGradients(Seen):
    """Both, one beside the other."""

    def __init__(self) -> None:
        super().__init__()
        self._colours, self._gradients = Colours(), Gradients()

    def describe(self, x: np.ndarray) -> np.ndarray:
        """Return the two in one row."""
        return np.concatenate([self._colours.describe(x), self._gradients.describe(x)])


class Ink(Seen):
    """Grey images of 28 × 28 pixels, bright on dark, for a network that was trained on such."""

    def describe(self, x: np.ndarray) -> np.ndarray:
        """Return ``(28, 28)``; an image with a bright rim is turned round."""
        grey = resize_images(_brightness(x)[None], (PIXELS, PIXELS))[0]
        rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        return 1.0 - grey if np.median(rim) > 0.5 else grey


def _brightness(x: np.ndarray) -> np.ndarray:
    return x if x.ndim == 2 else x.mean(axis=2)


class Words:
    """TF-IDF weights of words and pairs of words, as the course's text baseline."""

    # One letter is a word too: short answers need it.
    settings: ClassVar[dict[str, Any]] = {
        "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b",
    }  # fmt: skip

    def __init__(self, vocabulary: Mapping[str, int] | None = None) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.weights = TfidfVectorizer(sublinear_tf=True, vocabulary=vocabulary, **self.settings)

    def fit(self, X: Sequence[str]) -> Self:
        """Learn the words and how common they are.

        Raises:
            ValueError: if the texts hold no word.
        """
        self.weights.fit(X)
        return self

    def __call__(self, X: Sequence[str]) -> Any:
        """Return ``(n, words)`` float64, sparse; a text of unknown words only is all 0."""
        return sparse.csr_array(self.weights.transform(X))

    def state(self) -> tuple[Arrays, Facts]:
        """Return the weights, and the words in their order."""
        words = self.weights.get_feature_names_out().tolist()
        return {"idf": np.asarray(self.weights.idf_)}, {"words": words}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Self:
        """Return the same features."""
        words = facts["words"]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("words must be a list of texts")
        check_array("idf", arrays["idf"], "f", (len(words),))
        features = cls({word: index for index, word in enumerate(words)})
        features.weights.idf_ = arrays["idf"]
        return features


class Characters(Words):
    """TF-IDF weights of one to four characters, which scripts without blanks need."""

    settings: ClassVar[dict[str, Any]] = {"analyzer": "char_wb", "ngram_range": (1, 4)}


class Encoded:
    """Frozen features of a pretrained encoder; they have seen no label."""

    def __init__(self, framework: str, model: str) -> None:
        self.framework, self.model = framework, model
        self._known: dict[str, np.ndarray] = {}

    def fit(self, X: Sequence[str]) -> Encoded:
        """Learn nothing."""
        return self

    def __call__(self, X: Sequence[str]) -> np.ndarray:
        """Return ``(n, d)`` float64, each row of length 1."""
        new = [text for text in dict.fromkeys(X) if text not in self._known]
        if new:
            length = min(MOST_TOKENS, find_bert(self.model).config.max_position_embeddings)
            encode = TextFeatures(_installed(self.framework), self.model, length)
            self._known |= dict(zip(new, encode(new).astype(np.float64), strict=True))
        return np.stack([self._known[text] for text in X])

    def unread(self, X: Sequence[str]) -> tuple[float, int, float]:
        """Return what the encoder does not know of texts.

        These are the share of pieces unknown to it, how many texts are the same to it as another
        one, and how many pieces it makes of a word (English: 1.0 to 1.1).

        Args:
            X: texts; those that differ in case and blanks only count once.
        """
        texts = list({" ".join(text.casefold().split()) for text in X})
        known = find_bert(self.model)
        tokens = tokenise(texts, known.folder, max_length=10**6)
        unknown = unknown_piece(known.folder)
        pieces = np.concatenate([ids[1:-1] for ids in tokens.ids])
        same = len(texts) - len({ids.tobytes() for ids in tokens.ids})
        share = float((pieces == unknown).mean()) if len(pieces) else 0.0
        words = sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)
        return share, same, len(pieces) / max(1, words)

    def state(self) -> tuple[Arrays, Facts]:
        """Return the encoder's name; its weights are not copied."""
        return {}, {"framework": self.framework, "model": self.model}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Encoded:
        """Return the same features."""
        if not isinstance(facts["model"], str):
            raise TypeError(f"model must be a text, got {show(facts['model'])}")
        return cls(check_framework(facts["framework"]), facts["model"])


# ---------------------------------------------------------------------------- heads


class Majority:
    """Always the commonest class."""

    label: int

    def fit(self, X: np.ndarray, y: np.ndarray) -> Majority:
        """Count; of equally common classes the first."""
        self.label = int(np.bincount(y).argmax())
        self.labels = np.array([self.label])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return 1 for the one class, ``(n, 1)``."""
        return np.ones((X.shape[0], 1))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return np.full(X.shape[0], self.label, dtype=np.int64)

    def state(self) -> tuple[Arrays, Facts]:
        """Return the class."""
        return {}, {"label": self.label}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Majority:
        """Return the same head."""
        head = cls()
        head.label = check_number("label", facts["label"], low=0, integer=True)
        head.labels = np.array([head.label])
        return head


class NearestMean:
    """The class whose mean is nearest, by Euclidean distance.

    Its probabilities are those of Gaussians around the means with one variance for all, which is
    measured on the examples that it learns from.
    """

    means: np.ndarray
    labels: np.ndarray
    variance: float

    def fit(self, X: Any, y: np.ndarray) -> NearestMean:
        """Average each class."""
        self.labels, index = np.unique(y, return_inverse=True)
        means = [X[y == label].mean(axis=0) for label in self.labels]
        self.means = np.stack([np.asarray(mean).ravel() for mean in means])  # of sparse rows too
        own = self._squares(X)[np.arange(len(index)), index]
        freedom = max(1, len(index) - len(self.labels))
        self.variance = max(float(own.sum()) / freedom / max(1, self.means.shape[1]), 1e-12)
        return self

    def _squares(self, X: Any) -> np.ndarray:
        from sklearn.metrics import pairwise_distances

        return np.square(pairwise_distances(X, self.means))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return self.labels[self._squares(X).argmin(axis=1)]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return ``(n, len(labels))``."""
        return np.asarray(special.softmax(-self._squares(X) / (2 * self.variance), axis=1))

    def state(self) -> tuple[Arrays, Facts]:
        """Return means and their classes."""
        return {"means": self.means, "labels": self.labels}, {"variance": self.variance}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> NearestMean:
        """Return the same head."""
        head = cls()
        head.means, head.labels = arrays["means"], arrays["labels"]
        check_classes_array(head.labels)
        check_array("means", head.means, "f", (len(head.labels), None))
        head.variance = check_number("variance", facts["variance"], low=0, low_open=True)
        return head


class Neighbours:
    """The commonest class of the 3 nearest examples; of 1, while a class has fewer than 3."""

    X: Any  # rows of numbers, dense or sparse
    y: np.ndarray
    labels: np.ndarray
    k: int

    def fit(self, X: Any, y: np.ndarray) -> Neighbours:
        """Keep the examples."""
        counts = np.bincount(y)
        return self._keep(X, y, 3 if counts[counts > 0].min() >= 3 else 1)

    def _keep(self, X: Any, y: np.ndarray, k: int) -> Neighbours:
        from sklearn.neighbors import KNeighborsClassifier

        self.X, self.y, self.k, self.labels = X, y, k, np.unique(y)
        self._search = KNeighborsClassifier(k, algorithm="brute").fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``; where three classes vote once each, the first of them."""
        return np.asarray(self._search.predict(X), dtype=np.int64)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the shares of votes, ``(n, len(labels))``."""
        return np.asarray(self._search.predict_proba(X))

    def state(self) -> tuple[Arrays, Facts]:
        """Return the examples."""
        if not sparse.issparse(self.X):
            return {"X": self.X, "y": self.y}, {"k": self.k}
        X = sparse.csr_array(self.X)
        parts = {"data": X.data, "indices": X.indices, "indptr": X.indptr}
        return parts | {"y": self.y}, {"k": self.k, "width": X.shape[1]}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Neighbours:
        """Return the same head."""
        y = arrays["y"]
        check_labels("y", y)
        n = len(y)
        check_array("y", y, "i", (n,))
        X = arrays["X"] if "X" in arrays else _sparse_rows(arrays, n, facts["width"])
        if "X" in arrays:
            check_array("X", X, "f", (n, None))
        return cls()._keep(X, y, check_number("k", facts["k"], low=1, high=n, integer=True))


class Linear:
    """A weighted sum for each class: the head that logistic regression leaves behind."""

    weights: np.ndarray
    bias: np.ndarray
    labels: np.ndarray

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return self.labels[(X @ self.weights.T + self.bias).argmax(axis=1)]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return ``(n, len(labels))``."""
        return np.asarray(special.softmax(X @ self.weights.T + self.bias, axis=1))

    def state(self) -> tuple[Arrays, Facts]:
        """Return weights ``(C, d)`` and biases ``(C,)``."""
        return {"weights": self.weights, "bias": self.bias, "labels": self.labels}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Self:
        """Return the same head."""
        head = cls()
        head.weights, head.bias, head.labels = (arrays[k] for k in ("weights", "bias", "labels"))
        check_classes_array(head.labels)
        check_array("weights", head.weights, "f", (len(head.labels), None))
        check_array("bias", head.bias, "f", head.labels.shape)
        return head


class Logistic(Linear):
    """Logistic regression, by scikit-learn; C is 10 for features of length 1, else 1.

    Args:
        C: inverse of the penalty.
        balanced: whether every class weighs the same, however many examples it has.
    """

    def __init__(self, C: float = 1.0, balanced: bool = False) -> None:
        self.C, self.balanced = C, balanced

    def fit(self, X: np.ndarray, y: np.ndarray) -> Logistic:
        """Maximise the penalised likelihood."""
        from sklearn.linear_model import LogisticRegression

        weight = "balanced" if self.balanced else None
        model = LogisticRegression(C=self.C, max_iter=2000, class_weight=weight).fit(X, y)
        self.labels, weights, bias = model.classes_, model.coef_, model.intercept_
        if len(self.labels) == 2:  # scikit-learn keeps the second class's logit only
            weights, bias = np.vstack([0 * weights, weights]), np.append(0.0, bias)
        self.weights, self.bias = weights, bias
        return self


class Kernel:
    """A tuned competitor: ridge regression on a Gaussian kernel of classes written as 0 and 1.

    Width and penalty are those with the best leave-one-out score on the examples that it learns
    from, which ridge regression has in closed form: with :math:`H = K (K + αI)^{-1}` the answer
    for example i without it is :math:`(H_i Y - h_{ii} Y_i) / (1 - h_{ii})`.
    """

    X: np.ndarray
    dual: np.ndarray
    labels: np.ndarray
    gamma: float

    def __init__(self, balanced: bool = False) -> None:
        self.balanced = balanced

    def fit(self, X: Any, y: np.ndarray) -> Kernel:
        """Tune and solve."""
        from sklearn.metrics.pairwise import rbf_kernel

        X = X.toarray() if sparse.issparse(X) else np.asarray(X)
        self.labels, index = np.unique(y, return_inverse=True)
        Y = np.eye(len(self.labels))[index]
        counts = np.bincount(index)
        weight = 1.0 / counts[index] if self.balanced else np.ones(len(index))
        spread = max(2.0 * float(X.var(axis=0).sum()), 1e-12)  # the mean squared distance
        best = -1.0
        for factor in (0.1, 0.3, 1.0, 3.0):
            values, vectors = np.linalg.eigh(rbf_kernel(X, gamma=factor / spread))
            for alpha in (1e-3, 1e-2, 0.1, 1.0):
                share = np.maximum(values, 0.0) / (np.maximum(values, 0.0) + alpha)
                fitted = (vectors * share) @ (vectors.T @ Y)
                own = np.square(vectors) @ share
                left_out = (fitted - own[:, None] * Y) / np.maximum(1 - own[:, None], 1e-9)
                right = float(np.average(left_out.argmax(axis=1) == index, weights=weight))
                if right > best:
                    best, self.gamma = right, factor / spread
                    shrink = 1 / (np.maximum(values, 0.0) + alpha)
                    self.dual = (vectors * shrink) @ (vectors.T @ Y)
        self.X = X
        return self

    def _values(self, X: Any) -> np.ndarray:
        from sklearn.metrics.pairwise import rbf_kernel

        X = X.toarray() if sparse.issparse(X) else X
        return rbf_kernel(X, self.X, gamma=self.gamma) @ self.dual

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return self.labels[self._values(X).argmax(axis=1)]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the answers, cut to [0, 1] and divided by their sum, ``(n, len(labels))``."""
        values = np.clip(self._values(X), 1e-3, 1.0)
        return values / values.sum(axis=1, keepdims=True)

    def state(self) -> tuple[Arrays, Facts]:
        """Return the examples and their weights."""
        return {"X": self.X, "dual": self.dual, "labels": self.labels}, {"gamma": self.gamma}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Kernel:
        """Return the same head."""
        head = cls()
        head.X, head.dual, head.labels = (arrays[k] for k in ("X", "dual", "labels"))
        check_classes_array(head.labels)
        check_array("X", head.X, "f", (None, None))
        check_array("dual", head.dual, "f", (len(head.X), len(head.labels)))
        head.gamma = check_number("gamma", facts["gamma"], low=0, low_open=True)
        return head


class Adapted:
    """The course's own prototypical network, which has learned to tell characters apart."""

    def __init__(self, framework: str, file: Path) -> None:
        self.framework = framework
        self.arrays, self.header = load_arrays(file)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Adapted:
        """Average each class in the space of the network, which stays as it is."""
        self.X, self.y = X, y
        self.labels, index = np.unique(y, return_inverse=True)
        with tempfile.TemporaryDirectory() as folder:
            path = save_arrays(Path(folder) / "network", self.arrays, self.header)
            network = framework_module(self.framework).ProtoNet.load(path)
        self._classifier = network.adapt(X, index)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return self.labels[np.asarray(self._classifier.predict(X), dtype=np.int64)]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return ``(n, len(labels))``."""
        return np.asarray(self._classifier.predict_proba(X))

    def state(self) -> tuple[Arrays, Facts]:
        """Return the network and the examples."""
        network = {f"network.{name}": array for name, array in self.arrays.items()}
        return network | {"X": self.X, "y": self.y}, {
            "framework": self.framework,
            "header": self.header,
        }

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Adapted:
        """Return the same head; by the twin if only that is installed."""
        check_array("X", arrays["X"], "f", (None, PIXELS, PIXELS))
        check_labels("y", arrays["y"])
        check_array("y", arrays["y"], "i", (len(arrays["X"]),))
        head = cls.__new__(cls)
        head.framework = _installed(check_framework(facts["framework"]))
        head.arrays, head.header = part_of(arrays, "network"), facts["header"]
        return head.fit(arrays["X"], arrays["y"])


class Course:
    """An estimator of the course in one of the frameworks."""

    def __init__(self, framework: str, name: str, params: Mapping[str, Any]) -> None:
        self.framework, self.name, self.params = framework, name, dict(params)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Course:
        """Train on labelled and unlabelled (-1) examples."""
        params = dict(self.params)
        if "n_pca" in params:
            params["n_pca"] = min(params["n_pca"], *X.shape)
        self.estimator = _class(self.framework, self.name)(**params).fit(X, y, device="cpu")
        return self

    @property
    def labels(self) -> np.ndarray:
        """Class indices, in the order of the probabilities."""
        return np.asarray(self.estimator.classes_, dtype=np.int64)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return np.asarray(self.estimator.predict(X), dtype=np.int64)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return ``(n, len(labels))``."""
        return np.asarray(self.estimator.predict_proba(X))

    def state(self) -> tuple[Arrays, Facts]:
        """Return what the estimator's own ``save`` writes."""
        with tempfile.TemporaryDirectory() as folder:
            arrays, header = load_arrays(self.estimator.save(Path(folder) / "estimator"))
        return arrays, {"framework": self.framework, "header": header}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Course:
        """Return the same head, by the estimator's own ``load``; the twin's if need be."""
        header = facts["header"]
        framework = _installed(check_framework(facts["framework"]))
        head = cls(framework, check_choice("class", header["class"], COURSE), header["params"])
        with tempfile.TemporaryDirectory() as folder:
            path = save_arrays(Path(folder) / "estimator", arrays, header)
            head.estimator = _class(head.framework, head.name).load(path)
        return head


FEATURES: dict[str, Any] = {
    c.__name__: c
    for c in (
        Nothing, Flat, Standard, Colours, Gradients, ColoursGradients, Ink, Words, Characters,
        Encoded,
    )
}  # fmt: skip
HEADS: dict[str, Any] = {
    c.__name__: c
    for c in (Majority, NearestMean, Neighbours, Logistic, Kernel, Adapted, Course)
}  # fmt: skip


# ---------------------------------------------------------------------------- the whole


class Model:
    """A classifier of the report: features, then a head.

    Args:
        kind: what it classifies: "texts", "vectors" or "images".
        class_names: of the class indices.
        features: what turns examples into rows of numbers, unfitted.
        head: what turns these into classes, unfitted.
        title: the method's name in the report.
        columns: names of the features of vectors.
        table: how the columns of a table become features; empty for arrays.
    """

    input_shape: tuple[int, ...] = ()

    def __init__(
        self,
        kind: str,
        class_names: Sequence[str],
        features: Any,
        head: Any,
        title: str = "",
        columns: Sequence[str] = (),
        table: Sequence[Column] = (),
    ) -> None:
        self.kind, self.class_names, self.title = kind, tuple(class_names), title
        self.features, self.head = features, head
        self.columns, self.table = tuple(columns), tuple(table)

    @property
    def classes_(self) -> np.ndarray:
        """Names of the classes, in the order of the probabilities."""
        return np.array(self.class_names)

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns that a table must have, in scikit-learn's words."""
        return np.array([c.name for c in self.table] or self.columns, dtype=object)

    def fit(self, X: Any, y: np.ndarray) -> Model:
        """Learn.

        Args:
            X: texts, vectors ``(n, d)`` or images ``(n, h, w[, c])``.
            y: class indices ``(n,)``; a head that cannot use unlabelled examples (-1) and its
                features never see them.
        """
        if not isinstance(self.head, Course):
            known = np.flatnonzero(y != UNLABELLED)
            X, y = [X[i] for i in known] if isinstance(X, list) else X[known], y[known]
        self.input_shape = () if isinstance(X, list) else tuple(X.shape[1:])
        self.features.fit(X)
        self.head.fit(self.features(X), y)
        return self

    def predict_index(self, X: Any) -> np.ndarray:
        """Return class indices ``(n,)``, without checks."""
        return self.head.predict(self.features(X))

    def predict(self, X: Any) -> list[str]:
        """Return the class name of each example.

        Args:
            X: as the model was fitted on: a list of str; vectors ``(n, d)``, or a DataFrame whose
                columns are found by name; images ``(n, h, w[, c])`` in [0, 1], or the files of
                images, which are read as the report reads them.

        Raises:
            TypeError: for texts where arrays are expected, or the reverse.
            ValueError: for another shape, NaN, an empty text, images outside [0, 1], or a column
                that is missing.
        """
        return [self.class_names[i] for i in self.predict_index(self._checked(X))]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, ``(n, classes)`` in the order of ``classes_``.

        They are as good as the method: with few examples read them as an order, no more.

        Args:
            X: as for :meth:`predict`.
        """
        rows = self.head.predict_proba(self.features(self._checked(X)))
        proba = np.zeros((len(rows), len(self.class_names)))
        proba[:, self.head.labels] = rows
        return proba

    def _checked(self, X: Any) -> Any:
        if self.kind == "texts":
            return [text.strip() for text in check_texts("X", X)]
        if self.kind == "images" and _are_paths(X):
            return read_images(X, self.input_shape[0], colour=len(self.input_shape) == 3)
        if isinstance(X, pd.DataFrame):
            X = self._by_name(X)
        X = np.asarray(X, dtype=np.float64) if self.table else X
        holes = np.isnan(X) if self.table else None
        X = check_features("X", X if holes is None else np.where(holes, 0.0, X),
                           like=self.input_shape)  # fmt: skip
        return X if holes is None else np.where(holes, np.nan, X)

    def _by_name(self, frame: pd.DataFrame) -> np.ndarray:
        if self.table:
            return encode(frame, self.table)
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise ValueError(
                f"X has no column {', '.join(map(repr, missing[:5]))}; the model was fitted on "
                f"{', '.join(map(repr, self.columns[:12]))}. Pass an array for unnamed columns."
            )
        return frame[list(self.columns)].to_numpy(np.float64)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file with a JSON header, whole or not at all."""
        parts = {"features": self.features, "head": self.head}
        arrays: Arrays = {}
        facts: dict[str, Facts] = {}
        for name, part in parts.items():
            own, facts[name] = part.state()
            arrays |= {f"{name}.{key}": array for key, array in own.items()}
        # A file without any array is no safetensors file for every reader.
        arrays["n_classes"] = np.array(len(self.class_names))
        header = {
            "format": FORMAT,
            "version": __version__,
            "kind": self.kind,
            "title": self.title,
            "class_names": list(self.class_names),
            "input_shape": list(self.input_shape),
            "columns": list(self.columns),
            "table": [column.facts() for column in self.table],
            "parts": {name: type(part).__name__ for name, part in parts.items()},
            "facts": facts,
        }
        saved = save_arrays(path, arrays, header)
        os.chmod(saved, readable_mode())  # a temporary file is its owner's alone
        return saved


def readable_mode() -> int:
    """Return the permissions that a new file has here."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read the model that a report has saved.

    Args:
        path: the ``.safetensors`` file beside the report.  Nothing in it is executed.

    Returns:
        The model; call its ``predict``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no model of a report.
        ImportError: if it needs a framework, and none is installed.
    """
    arrays, header = load_arrays(path)
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} holds {header.get('format')!r}, expected {FORMAT!r}.")
    try:
        parts, facts = header["parts"], header["facts"]
        features, head = (
            known[check_choice(name, parts[name], known)].from_state(
                part_of(arrays, name), facts[name]
            )
            for name, known in (("features", FEATURES), ("head", HEADS))
        )
        kind = check_choice("kind", header["kind"], ("texts", "vectors", "images"))
        names, title, shape = header["class_names"], header["title"], header["input_shape"]
        if not isinstance(names, list) or not all(isinstance(n, str) for n in [*names, title]):
            raise TypeError("class_names must be a list of texts, and title a text")
        if kind != "texts":
            check_shape("input_shape", shape)
        columns, table = header["columns"], [Column.from_facts(c) for c in header["table"]]
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise TypeError("columns must be a list of texts")
        model = Model(kind, names, features, head, title, columns, table)
        model.input_shape = tuple(shape)
        if kind == "vectors" and {len(columns), *shape} != {*shape}:
            raise ValueError("columns and input_shape do not fit")
        if table and sum(len(c.features) for c in table) != len(columns):
            raise ValueError("table and columns do not fit")
        _try_out(model)
    except _WRONG_CONTENT as error:
        raise ValueError(f"{path} is no whole model of a report: {error!r:.200}.") from None
    return model


_WRONG_CONTENT = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


def _try_out(model: Model) -> None:
    """Let a model that was read predict once: its parts must fit each other.

    An encoder is left out, since it may have to be fetched.
    """
    if isinstance(model.features, Encoded):
        return
    X: Any = ["a word"] if model.kind == "texts" else np.zeros((1, *model.input_shape))
    (index,) = model.predict_index(X)
    check_number("class", int(index), low=0, high=len(model.class_names) - 1, integer=True)
    labels = model.head.labels
    check_number("class", int(labels.max()), low=0, high=len(model.class_names) - 1, integer=True)
    if model.head.predict_proba(model.features(X)).shape != (1, len(labels)):
        raise ValueError("the probabilities do not fit the classes")


def _are_paths(X: Any) -> bool:
    return isinstance(X, list | tuple) and all(isinstance(x, str | os.PathLike) for x in X)


def is_installed(framework: str) -> bool:
    """Say whether a framework can be imported, without importing it."""
    return importlib.util.find_spec(framework) is not None


def _installed(framework: str) -> str:
    """Return the framework, or its twin if only that is installed."""
    for name in (framework, *(other for other in EXTRAS if other != framework)):
        if is_installed(name):
            return name
    raise ImportError(
        f"this needs PyTorch or TensorFlow: pip install 'fewshot-course[{EXTRAS[framework]}]'."
    )


COURSE = ("GMMPseudoLabeler", "SelfTraining")
"""The estimators of the course that a report's model may have; a file names one of these."""


def _class(framework: str, name: str) -> Any:
    check_choice("class", name, COURSE)
    return getattr(framework_module(framework), name)


def _sparse_rows(arrays: Mapping[str, np.ndarray], n: int, width: Any) -> Any:
    """Return sparse rows from their parts, which must fit together."""
    data, indices, ends = (arrays[name] for name in ("data", "indices", "indptr"))
    check_number("width", width, low=1, high=2**31 - 1, integer=True)
    check_array("data", data, "f", (None,))
    check_array("indices", indices, "i", data.shape)
    check_array("indptr", ends, "i", (n + 1,))
    rising = ends[0] == 0 and ends[-1] == len(data) and (np.diff(ends) >= 0).all()
    if not rising or (len(indices) and not 0 <= indices.min() <= indices.max() < width):
        raise ValueError("indices and indptr are not those of sparse rows")
    return sparse.csr_array((data, indices, ends), shape=(n, width))
