"""Small models from large ones in TensorFlow: distillation, pruning, and eight-bit weights."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._arguments import NOT_NEGATIVE, POSITIVE, SHARE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import compression as settings
from fewshot_course.both.bert import BertConfig
from fewshot_course.both.compression import fitted_copy
from fewshot_course.both.fine_tuning import in_batches
from fewshot_course.both.optim import warmup_linear
from fewshot_course.both.pruning import (
    Pruner,
    cubic_sparsity,
    dequantize,
    magnitude_mask,
    magnitude_masks,
    quantize_symmetric,
)
from fewshot_course.both.student import FROZEN, CompressedClassifier, Examples, Integers
from fewshot_course.both.student import Engine as EngineProtocol
from fewshot_course.both.texts import Tokens
from fewshot_course.both.training import Run
from fewshot_course.evaluation.costs import file_size, milliseconds
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import resolve_device, to_array, to_tensor, train
from fewshot_course.tf.encoder import compiled
from fewshot_course.tf.fine_tuning import TextNetwork
from fewshot_course.weights import Arrays

__all__ = [
    "CompressedImageClassifier",
    "CompressedTextClassifier",
    "cubic_sparsity",
    "dequantize",
    "distillation_loss",
    "file_size",
    "magnitude_mask",
    "magnitude_masks",
    "milliseconds",
    "prune",
    "quantize",
    "quantize_symmetric",
    "student_loss",
]

_BLOCK = 256  # images in one batch of a prediction
_WARMUP = 0.1  # part of the steps in which the learning rate rises


@checked(temperature=POSITIVE, alpha=SHARE)
def distillation_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 2.0,
    alpha: float = 0.5,
) -> tf.Tensor:
    """Return the mean of α·T²·KL(p_T ‖ q_T) + (1 - α)·cross-entropy (Hinton et al. 2015).

    p_T = softmax(teacher/T) and q_T = softmax(student/T).  Gradients of the soft part fall as
    1/T², so T² keeps the mix of the two parts as it is when T changes.

    Args:
        student_logits: ``(n, C)``.
        teacher_logits: ``(n, C)``.
        labels: class indices ``(n,)`` int64; -1: unknown, such an example has no second part.
        temperature: T > 0.
        alpha: weight of the soft part, in [0, 1].

    Returns:
        A scalar: the sum over all examples over n.
    """
    cold = tf.constant(temperature, student_logits.dtype)
    share = tf.constant(alpha, student_logits.dtype)
    soft = tf.nn.softmax(teacher_logits / cold)
    log_p = tf.nn.log_softmax(teacher_logits / cold)
    log_q = tf.nn.log_softmax(student_logits / cold)
    divergence = tf.reduce_sum(soft * (log_p - log_q), 1)
    known = labels >= 0
    chosen = tf.gather(tf.nn.log_softmax(student_logits), tf.maximum(labels, 0), batch_dims=1)
    hard = tf.where(known, -chosen, tf.zeros_like(chosen))
    return tf.reduce_mean(share * cold**2 * divergence + (1 - share) * hard)


@checked(
    temperature=POSITIVE,
    alpha=SHARE,
    features_weight=NOT_NEGATIVE,
)
def student_loss(
    network: Any,
    inputs: Sequence[tf.Tensor],
    logits: tf.Tensor,
    labels: tf.Tensor,
    features: tf.Tensor | None = None,
    *,
    temperature: float = 2.0,
    alpha: float = 0.5,
    features_weight: float = 10.0,
    normalize: bool = False,
) -> tf.Tensor:
    """Return the loss of a step: what the teacher says, the labels, and the teacher's features.

        distillation_loss + features_weight · mean ‖h/‖h‖ - teacher's h‖²

    Args:
        network: the student, with ``features`` and a linear layer ``head``.
        inputs: what ``features`` takes.
        logits: the teacher's, ``(n, C)``.
        labels: class indices ``(n,)``, -1 where unknown.
        features: the teacher's, of length 1, ``(n, d)``; ``None``: not learned from.
        temperature: T > 0, see :func:`distillation_loss`.
        alpha: weight of the soft part, in [0, 1].
        features_weight: of the distance of the features, ≥ 0 (Romero et al. 2015).
        normalize: whether features get the length 1 before the head.

    Returns:
        A scalar, ≥ 0.
    """
    training = {} if isinstance(network, TextNetwork) else {"training": True}
    h = network.features(*inputs, **training)
    unit = h
    if features is not None or normalize:
        unit = h / tf.maximum(tf.norm(h, axis=1, keepdims=True), tf.constant(1e-12, h.dtype))
    z = network.head(unit if normalize else h)
    loss = distillation_loss(z, logits, labels, temperature, alpha)
    if features is not None:
        distance = tf.reduce_sum(tf.square(unit - features), 1)
        loss += tf.constant(features_weight, h.dtype) * tf.reduce_mean(distance)
    return loss


def _train(
    network: keras.Model,
    student: CompressedClassifier,
    examples: Examples,
    streams: Streams,
    fingerprint: Mapping[str, Any],
    run: Run,
    signature: list[tf.TensorSpec],
) -> Arrays:
    """Train the student's network; weights that were pruned stay 0."""
    device, dtype = run.device, student.dtype
    state = networks._state(network)
    named = {name: variable.value for name, (variable, _) in state.items() if variable.trainable}
    trained = [variable for name, variable in named.items() if not name.startswith(FROZEN)]
    optimizer = optim.adamw(trained, lr=student.lr, weight_decay=student.weight_decay)
    logits = to_tensor(examples.logits, device, dtype)
    labels = to_tensor(examples.labels, device)
    features = None
    if examples.features is not None:
        features = to_tensor(examples.features, device, dtype)
    steps = student.epochs * examples.batches.batches_per_epoch
    pruner = Pruner(student.sparsity, student.pruning, student.scope, steps)
    masks: dict[str, tf.Variable] = {}
    if student.sparsity:
        arrays = networks.to_numpy(network)
        chosen = [name for name in named if student._prunable(name, arrays[name])]
        with tf.device(device):
            masks = {n: tf.Variable(tf.ones_like(named[n]), trainable=False) for n in chosen}
    under_way = False

    def prunable() -> Arrays:
        return {name: np.transpose(to_array(named[name]), state[name][1]) for name in masks}

    def use(made: Arrays) -> None:
        for name, mask in made.items():
            masks[name].assign(np.transpose(mask, np.argsort(state[name][1])).astype(dtype))

    def apply_masks() -> None:
        for name, mask in masks.items():
            named[name].assign(named[name] * mask)

    def loss_of(index: tf.Tensor, inputs: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return student_loss(
            network, inputs, tf.gather(logits, index), tf.gather(labels, index),
            None if features is None else tf.gather(features, index),
            temperature=student.temperature, alpha=student.alpha,
            features_weight=student._features_weight, normalize=student.normalize_,
        )  # fmt: skip

    def update(index: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            loss = loss_of(index, inputs)
        optimizer.apply(tape.gradient(loss, trained))
        apply_masks()
        return loss

    whole = [tf.TensorSpec((None,), tf.int64), *signature]
    compiled_update = tf.function(update, input_signature=whole, autograph=False)
    update_once = compiled_update.get_concrete_function()

    def step(number: int) -> Mapping[str, tf.Tensor]:
        nonlocal under_way
        if masks and not under_way:
            use(pruner.start(prunable()))
            apply_masks()
            under_way = True
        optim.set_learning_rate(optimizer, student.lr * warmup_linear(number, steps, _WARMUP))
        index = examples.batches.next()
        inputs = (to_tensor(array, device) for array in examples.inputs(index))
        loss = update_once(to_tensor(index, device), *inputs)
        if masks and pruner.due(number):
            use(pruner.advance(number, prunable()))
            apply_masks()
        return {"loss": loss}

    return train(
        step,
        run,
        steps=steps,
        modules={"network": network},
        optimizers={"adamw": optimizer},
        resumables={"streams": streams, "batches": examples.batches, "pruner": pruner},
        fingerprint=fingerprint,
    )


def _int8_layers(network: keras.Model, activations: bool, integers: Integers | None) -> Integers:
    """Quantise the linear layers by Keras; returns their whole numbers and scales."""
    settings = None if activations else _weights_only()
    found: Integers = {}
    layers = _linear_layers(network)
    with _short_collections():
        for layer in layers.values():
            layer.quantize("int8", config=settings)
    for name, layer in layers.items():
        variables = {variable.name: variable for variable in layer.weights}
        kernel, scale = variables["kernel"], variables["kernel_scale"]  # Keras divides by it
        if integers is not None:
            q, s = integers[f"{name}.weight"]
            kernel.assign(q.T)
            scale.assign(1 / s)
        pair = kernel.numpy().T.copy(), 1 / scale.numpy().astype(np.float64)
        found[f"{name}.weight"] = pair
    return found


@contextlib.contextmanager
def _short_collections() -> Iterator[None]:
    """Let ``gc.collect``, which Keras calls for each layer, see new objects only.

    All of TensorFlow's would take it a third of a second each time.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _weights_only() -> Any:
    try:
        from keras.quantizers import Int8QuantizationConfig
    except ImportError as error:
        raise ImportError(
            f"backend='framework' needs Keras >= 3.13 ({error}); install it with: "
            "pip install 'fewshot-course[compression]', or say backend='hand'."
        ) from error
    return Int8QuantizationConfig(activation_quantizer=None)


def _linear_layers(network: keras.Model) -> dict[str, keras.layers.Dense]:
    """Canonical name → linear layer."""
    of_weight = {id(v): name for name, (v, _) in networks._state(network).items()}
    layers = [one for one in network._flatten_layers() if type(one) is keras.layers.Dense]
    return {of_weight[id(one.kernel)].removesuffix(".weight"): one for one in layers}


def _load_floats(network: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Load all layers but those that Keras has quantised."""
    for name, (variable, axes) in networks._state(network).items():
        if variable.dtype != "int8" and name in arrays:
            variable.assign(np.transpose(np.asarray(arrays[name]), np.argsort(axes)))


class Engine(EngineProtocol):
    """One network of a compressed classifier on a device, in TensorFlow.

    Args:
        network: the student.
        dtype: of its weights.
        device: where it is.
        signature: of what it takes.
    """

    resolve = staticmethod(resolve_device)

    def __init__(
        self, network: keras.Model, dtype: str, device: str, signature: list[tf.TensorSpec]
    ) -> None:
        self.network: Any = network
        self._dtype, self._device, self._signature = dtype, device, signature
        self._compile()

    def _compile(self) -> None:
        network = self.network
        if isinstance(network, TextNetwork):
            self._functions = {"logits": compiled(network), "features": compiled(network.features)}
            return
        function = tf.function(
            lambda x: network(x, training=False), input_signature=self._signature, autograph=False
        )
        # Called as a concrete function, which does not warn where many models come in a row.
        self._traced = functools.cache(function.get_concrete_function)

    @classmethod
    def for_texts(
        cls, config: BertConfig, n_classes: int, normalize: bool, dtype: str, device: str
    ) -> Self:
        """Make a text network; its weights are yet to be loaded."""
        with tf.device(device), networks.layer_dtype(dtype):
            network = TextNetwork(config, n_classes, normalize=normalize)
        return cls(network, dtype, device, [tf.TensorSpec((None, None), tf.int64)] * 2)

    @classmethod
    def for_images(
        cls, name: str, shape: tuple[int, ...], n_classes: int, channels: int,
        rng: np.random.Generator, dtype: str, device: str,
    ) -> Self:  # fmt: skip
        """Make a new network for images."""
        with tf.device(device), networks.layer_dtype(dtype):
            if name == "conv4":
                network = networks.initialise(networks.Conv4(shape, n_classes, channels), rng)
            else:
                network = networks.build(name, shape, n_classes, rng, dtype)
        return cls(network, dtype, device, [tf.TensorSpec((None, *shape), tf.as_dtype(dtype))])

    def train(
        self, student: CompressedClassifier, examples: Examples, streams: Streams,
        fingerprint: Mapping[str, Any], run: Run,
    ) -> Arrays:  # fmt: skip
        """Train; weights that were pruned stay 0."""
        return _train(self.network, student, examples, streams, fingerprint, run, self._signature)

    def run_texts(self, tokens: Tokens, output: str) -> list[np.ndarray]:
        """Return the "logits" or "features" of each text."""
        function = self._functions[output]

        def one(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return to_array(function(to_tensor(ids, self._device), to_tensor(mask, self._device)))

        return in_batches(tokens, one)

    def run_images(self, X: np.ndarray) -> np.ndarray:
        """Return the logits, ``(n, C)``."""
        blocks = [X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK)]
        tensors = (to_tensor(block, self._device, self._dtype) for block in blocks)
        return np.concatenate([to_array(self._traced()(x)) for x in tensors])

    def weights(self) -> Arrays:
        """Return the weights in canonical layout, as floats."""
        return networks.to_numpy(self.network)

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load floats into the layers that are not of whole numbers."""
        _load_floats(self.network, arrays)

    def int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        """Have Keras quantise the linear layers; ``integers``: take these."""
        found = _int8_layers(self.network, activations, integers)
        self._compile()  # what was traced before has the layers of floats
        return found


class CompressedTextClassifier(settings.CompressedTextClassifier):
    __doc__ = settings.CompressedTextClassifier.__doc__
    _engines = Engine


class CompressedImageClassifier(settings.CompressedImageClassifier):
    __doc__ = settings.CompressedImageClassifier.__doc__
    _engines = Engine


def prune(classifier: Any, sparsity: float, scope: str = "layer") -> CompressedClassifier:
    """Return a copy of a classifier whose smallest weights are 0 (Han et al. 2015), not trained.

    To train on with the mask held: ``prune(c, 0.8).set_params(epochs=3).fit(X, y)``.

    Args:
        classifier: a fitted TextClassifier, ImageClassifier, or a compressed one.
        sparsity: share of the weights that is set to 0, in [0, 1]; 0 gives a plain copy as a
            network of its own.
        scope: "layer" takes this share of each array; "global" ranks all weights together.

    Raises:
        TypeError: for any other classifier.
        ValueError: for a sparsity out of range, or a text classifier with an LSTM.
        NotFittedError: if the classifier is not fitted.
    """
    copied: CompressedClassifier = fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, sparsity, scope
    )
    return copied


def quantize(
    classifier: Any, backend: str = "framework", activations: bool = False
) -> CompressedClassifier:
    """Return a copy of a classifier with eight-bit weights, one scale a row.

    Tables and convolutions have eight bits in the file and are floats in memory; linear layers
    compute with eight-bit weights too, if the framework's own means are used.

    Args:
        classifier: a fitted TextClassifier, ImageClassifier, or a compressed one, of float32.
        backend: "framework" (torchao for PyTorch, Keras' ``quantize`` for TensorFlow), or "hand":
            :func:`quantize_symmetric`, and floats in memory.
        activations: whether the inputs of linear layers are rounded to eight bits too.

    Raises:
        ImportError: if the backend is not installed; the message names the extra.
        TypeError: for any other classifier.
        ValueError: for an unknown backend, a float64 classifier, or ``activations`` by hand.
        NotFittedError: if the classifier is not fitted.
    """
    copied: CompressedClassifier = fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, 0.0, "layer"
    )
    copied.sparsity = getattr(classifier, "sparsity", 0.0)
    return copied._quantize(backend, activations)
