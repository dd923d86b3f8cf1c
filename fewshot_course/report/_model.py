"""Models of the report: features that need no labels, a simple head, and a file of their own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import sparse

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
from fewshot_course.both.texts import check_texts
from fewshot_course.frameworks import TextFeatures, check_framework, framework_module
from fewshot_course.weights import load_arrays, part_of, save_arrays

FORMAT = "fewshot_course.report_model/1"
EXTRAS = {"torch": "torch", "tensorflow": "tf"}
MOST_TOKENS = 128
_BLOCK = 1024

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
    """Images or vectors as they are, one row an example."""

    def fit(self, X: Any) -> Flat:
        """Learn nothing."""
        return self

    def __call__(self, X: Any) -> np.ndarray:
        """Return ``(n, d)`` float64."""
        X = np.asarray(X, dtype=np.float64)
        return X.reshape(len(X), -1)

    def state(self) -> tuple[Arrays, Facts]:
        """Return nothing: there is nothing to keep."""
        return {}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Flat:
        """Return the same features."""
        return cls()


class Standard(Flat):
    """Vectors with mean 0 and standard deviation 1 a column, measured where they are fitted."""

    mean: np.ndarray
    scale: np.ndarray

    def fit(self, X: Any) -> Standard:
        """Measure mean and spread; a column without spread is only moved."""
        X = np.asarray(X, dtype=np.float64)
        self.mean = X.mean(axis=0)
        spread = X.std(axis=0)
        # Equal numbers may have a spread of some rounding errors, by which one must not divide.
        flat = spread <= 1e-12 * np.maximum(1.0, np.abs(self.mean))
        self.scale = np.where(flat, 1.0, spread)
        return self

    def __call__(self, X: Any) -> np.ndarray:
        """Return ``(n, d)`` float64."""
        return (np.asarray(X, dtype=np.float64) - self.mean) / self.scale

    def state(self) -> tuple[Arrays, Facts]:
        """Return mean and scale."""
        return {"mean": self.mean, "scale": self.scale}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Standard:
        """Return the same features."""
        features = cls()
        features.mean, features.scale = arrays["mean"], arrays["scale"]
        check_array("mean", features.mean, "f", (None,))
        check_array("scale", features.scale, "f", features.mean.shape)
        if (features.scale <= 0).any():
            raise ValueError("scale must be > 0")
        return features


class Words:
    """TF-IDF weights of words and pairs of words, as the course's text baseline."""

    def __init__(self, vocabulary: Mapping[str, int] | None = None) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        # One letter is a word too: scripts without blanks and short answers need it.
        self.weights = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b",
            vocabulary=vocabulary,
        )  # fmt: skip

    def fit(self, X: Sequence[str]) -> Words:
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
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Words:
        """Return the same features."""
        words = facts["words"]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("words must be a list of texts")
        check_array("idf", arrays["idf"], "f", (len(words),))
        features = cls({word: index for index, word in enumerate(words)})
        features.weights.idf_ = arrays["idf"]
        return features


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
        return self

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
        return head


class NearestMean:
    """The class whose mean is nearest, by Euclidean distance."""

    means: np.ndarray
    labels: np.ndarray

    def fit(self, X: Any, y: np.ndarray) -> NearestMean:
        """Average each class."""
        self.labels = np.unique(y)
        means = [X[y == label].mean(axis=0) for label in self.labels]
        self.means = np.stack([np.asarray(mean).ravel() for mean in means])  # of sparse rows too
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return self.labels[_nearest(X, self.means, 1)[:, 0]]

    def state(self) -> tuple[Arrays, Facts]:
        """Return means and their classes."""
        return {"means": self.means, "labels": self.labels}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> NearestMean:
        """Return the same head."""
        head = cls()
        head.means, head.labels = arrays["means"], arrays["labels"]
        check_classes_array(head.labels)
        check_array("means", head.means, "f", (len(head.labels), None))
        return head


class Neighbours:
    """The commonest class of the 3 nearest examples; of 1, while a class has fewer than 3."""

    X: Any  # rows of numbers, dense or sparse
    y: np.ndarray
    k: int

    def fit(self, X: Any, y: np.ndarray) -> Neighbours:
        """Keep the examples."""
        counts = np.bincount(y)
        self.X, self.y, self.k = X, y, 3 if counts[counts > 0].min() >= 3 else 1
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``; where three classes vote once each, the first of them."""
        votes = self.y[_nearest(X, self.X, self.k)]
        return np.array([np.bincount(row).argmax() for row in votes], dtype=np.int64)

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
        head = cls()
        head.y = arrays["y"]
        check_labels("y", head.y)
        n = len(head.y)
        check_array("y", head.y, "i", (n,))
        head.X = arrays["X"] if "X" in arrays else _sparse_rows(arrays, n, facts["width"])
        if "X" in arrays:
            check_array("X", head.X, "f", (n, None))
        head.k = check_number("k", facts["k"], low=1, high=n, integer=True)
        return head


class Logistic:
    """Logistic regression, by scikit-learn; C is 10 for features of length 1, else 1."""

    weights: np.ndarray
    bias: np.ndarray
    labels: np.ndarray

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> Logistic:
        """Maximise the penalised likelihood."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=self.C, max_iter=2000).fit(X, y)
        self.labels, weights, bias = model.classes_, model.coef_, model.intercept_
        if len(self.labels) == 2:  # scikit-learn keeps the second class's logit only
            weights, bias = np.vstack([0 * weights, weights]), np.append(0.0, bias)
        self.weights, self.bias = weights, bias
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return self.labels[(X @ self.weights.T + self.bias).argmax(axis=1)]

    def state(self) -> tuple[Arrays, Facts]:
        """Return weights ``(C, d)`` and biases ``(C,)``."""
        arrays = {"weights": self.weights, "bias": self.bias, "labels": self.labels}
        return arrays, {"C": self.C}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], facts: Facts) -> Logistic:
        """Return the same head."""
        head = cls(check_number("C", facts["C"], low=0, low_open=True))
        head.weights, head.bias, head.labels = (arrays[k] for k in ("weights", "bias", "labels"))
        check_classes_array(head.labels)
        check_array("weights", head.weights, "f", (len(head.labels), None))
        check_array("bias", head.bias, "f", head.labels.shape)
        return head


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

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class indices ``(n,)``."""
        return np.asarray(self.estimator.predict(X), dtype=np.int64)

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


FEATURES: dict[str, Any] = {c.__name__: c for c in (Nothing, Flat, Standard, Words, Encoded)}
HEADS: dict[str, Any] = {
    c.__name__: c for c in (Majority, NearestMean, Neighbours, Logistic, Course)
}


# ---------------------------------------------------------------------------- the whole


class Model:
    """A classifier of the report: features, then a head.

    Args:
        kind: what it classifies: "texts", "vectors" or "images".
        class_names: of the class indices.
        features: what turns examples into rows of numbers, unfitted.
        head: what turns these into classes, unfitted.
        title: the method's name in the report.
    """

    input_shape: tuple[int, ...] = ()

    def __init__(
        self, kind: str, class_names: Sequence[str], features: Any, head: Any, title: str = ""
    ) -> None:
        self.kind, self.class_names, self.title = kind, tuple(class_names), title
        self.features, self.head = features, head

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
            X: list of str, vectors ``(n, d)``, or images ``(n, h, w[, c])`` in [0, 1], as the
                model was fitted on; :func:`read_images` reads files.

        Raises:
            TypeError: for texts where arrays are expected, or the reverse.
            ValueError: for another shape, NaN, an empty text, or images outside [0, 1].
        """
        if self.kind == "texts":
            X = [text.strip() for text in check_texts("X", X)]
        else:
            X = check_features("X", X, like=self.input_shape)
        return [self.class_names[i] for i in self.predict_index(X)]

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
        model = Model(kind, names, features, head, title)
        model.input_shape = tuple(shape)
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
    labels = getattr(model.head, "labels", getattr(model.head, "y", np.zeros(1, np.int64)))
    check_number("class", int(labels.max()), low=0, high=len(model.class_names) - 1, integer=True)


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


def _nearest(X: Any, points: Any, k: int) -> np.ndarray:
    """Return the indices of the k nearest points of each row, the nearest first, ``(n, k)``."""
    squares = np.asarray((points * points).sum(axis=1)).ravel()
    if sparse.issparse(points):
        squares = np.round(squares, 12)
    blocks = []
    for start in range(0, X.shape[0], _BLOCK):
        products = X[start : start + _BLOCK] @ points.T
        if sparse.issparse(products):
            # Rows as far as each other may differ in the last digit; the first one is meant then.
            products = np.round(products.toarray(), 12)
        # The row's own square is the same for all points.
        distances = squares - 2 * products
        blocks.append(np.argsort(distances, axis=1, kind="stable")[:, :k])
    return np.concatenate(blocks)
