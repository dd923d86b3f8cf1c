"""Small models from large ones in TensorFlow: distillation, pruning, and eight-bit weights."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fewshot_course._streams import Streams
from fewshot_course.both.bert import BertConfig
from fewshot_course.both.compression import (
    FROZEN,
    CompressedClassifier,
    CompressedImages,
    CompressedTexts,
    Examples,
    Integers,
    fitted_copy,
)
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
from fewshot_course.both.texts import Tokens
from fewshot_course.both.training import hash_arrays
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
]

_BLOCK = 256  # images in one batch of a prediction
_WARMUP = 0.1  # part of the steps in which the learning rate rises


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


def _train_student(
    student: Any,
    examples: Examples,
    streams: Streams,
    fingerprint: Mapping[str, Any],
    **options: Any,
) -> Arrays:
    """Train ``student.network_``; weights that were pruned stay 0."""
    network, device, dtype = student.network_, student._device, student.dtype
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
        h = student._features_of(*inputs)
        unit = h
        if features is not None or student.normalize_:
            unit = h / tf.maximum(tf.norm(h, axis=1, keepdims=True), tf.constant(1e-12, h.dtype))
        z = network.head(unit if student.normalize_ else h)
        loss = distillation_loss(
            z, tf.gather(logits, index), tf.gather(labels, index),
            student.temperature, student.alpha,
        )  # fmt: skip
        if features is not None:
            distance = tf.reduce_sum(tf.square(unit - tf.gather(features, index)), 1)
            loss += tf.constant(student._features_weight, h.dtype) * tf.reduce_mean(distance)
        return loss

    def update(index: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            loss = loss_of(index, inputs)
        optimizer.apply(tape.gradient(loss, trained))
        apply_masks()
        return loss

    signature = [tf.TensorSpec((None,), tf.int64), *student._signature()]
    compiled_update = tf.function(update, input_signature=signature, autograph=False)
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
        steps=steps,
        modules={"network": network},
        optimizers={"adamw": optimizer},
        resumables={"streams": streams, "batches": examples.batches, "pruner": pruner},
        fingerprint={
            **fingerprint,
            "data": hash_arrays(examples.labels, examples.logits, examples.features),
        },
        device=device,
        **options,
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


def _load_floats(student: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Load all layers but those that Keras has quantised."""
    for name, (variable, axes) in networks._state(student.network_).items():
        if variable.dtype != "int8" and name in arrays:
            variable.assign(np.transpose(np.asarray(arrays[name]), np.argsort(axes)))


class CompressedTextClassifier(CompressedTexts):
    """A small classifier of texts that learns from a large one.

    The student has some of the teacher's layers and starts from their weights.  It learns by
    AdamW from the teacher's soft labels, from hard labels where there are any
    (:func:`distillation_loss`), and from the teacher's features.  Texts need no labels: give all
    you have.  With a ``sparsity`` its weights are pruned on the way, and what was pruned stays 0.

    The table of words is not trained: words that the few texts lack keep their place.

    Args:
        teacher: a fitted classifier with ``predict_proba``; a ``TextClassifier`` or another
            student gives weights to start from too.
        layers: of the student, spread evenly over the teacher's; ``None``: all.
        sparsity: share of the weights of words and layers that end as 0, in [0, 1].
        pruning: "one-shot" (before training) or "gradual" (on the way, Zhu & Gupta 2017).
        scope: the same share of each matrix ("layer"), or of all together ("global").
        temperature: T of the soft labels, > 0.
        alpha: weight of the soft labels, in [0, 1].
        features: weight of the squared distance to the teacher's features, both of length 1
            (Romero et al. 2015); ``None``: 10 where the teacher has features of that width.
        epochs: passes over the texts; 0: only cut and prune.
        batch_size: texts in a step.
        lr: AdamW's learning rate; it rises over a tenth of the steps, then falls to 0.
        weight_decay: of AdamW; biases and layer norms are not decayed.
        model: pretrained model to start from where the teacher is none of the course's;
            ``None``: the teacher's, or "minilm".
        max_length: tokens a text may have; longer ones are cut, which a warning announces.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the student, a :class:`~fewshot_course.tf.fine_tuning.TextNetwork`.
        classes_: labels, ``(C,)`` int64.
        history_: "loss" ``(steps,)``.
        layers_: number of its layers.
        quantized_: "" for floats, else how it was quantised.
    """

    def __init__(
        self,
        teacher: Any = None,
        layers: int | None = 2,
        sparsity: float = 0.0,
        pruning: str = "gradual",
        scope: str = "layer",
        temperature: float = 2.0,
        alpha: float = 0.5,
        features: float | None = None,
        epochs: int = 10,
        batch_size: int = 32,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        model: Any = None,
        max_length: int = 128,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.teacher = teacher
        self.layers = layers
        self.sparsity = sparsity
        self.pruning = pruning
        self.scope = scope
        self.temperature = temperature
        self.alpha = alpha
        self.features = features
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.model = model
        self.max_length = max_length
        self.dtype = dtype
        self.random_state = random_state

    def _place(self, device: str) -> str:
        return resolve_device(device)

    def _build(self, config: BertConfig, arrays: Arrays | None) -> None:
        with tf.device(self._device), networks.layer_dtype(self.dtype):
            self.network_ = TextNetwork(config, len(self.classes_), normalize=self.normalize_)
        if arrays is not None:
            networks.from_numpy(self.network_, arrays)
        self._compile()

    def _compile(self) -> None:
        network = self.network_
        self._functions = {"logits": compiled(network), "features": compiled(network.features)}

    def _features_of(self, ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return self.network_.features(ids, mask)

    def _signature(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec((None, None), tf.int64)] * 2

    def _run(self, tokens: Tokens, what: str) -> list[np.ndarray]:
        function = self._functions[what]

        def one(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return to_array(function(to_tensor(ids, self._device), to_tensor(mask, self._device)))

        return in_batches(tokens, one)

    def _train(
        self, examples: Examples, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> Arrays:
        return _train_student(self, examples, streams, fingerprint, **options)

    def _network_weights(self) -> Arrays:
        return networks.to_numpy(self.network_)

    def _load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        _load_floats(self, arrays)

    def _int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        found = _int8_layers(self.network_, activations, integers)
        self._compile()  # what was traced before has the layers of floats
        return found


class CompressedImageClassifier(CompressedImages):
    """A small classifier of images that learns from a large one.

    With ``channels`` the student is a new, narrower conv4; without, a copy of the teacher's
    network, to be pruned.  It learns by AdamW from the teacher's soft labels, and from hard
    labels where there are any (:func:`distillation_loss`).

    Args:
        teacher: a fitted classifier with ``predict_proba``.
        channels: width of the student's conv4; ``None``: the teacher's network and weights.
        sparsity: share of the weights of convolutions and linear layers that end as 0.
        pruning: "one-shot" (before training) or "gradual" (on the way, Zhu & Gupta 2017).
        scope: the same share of each array ("layer"), or of all together ("global").
        temperature: T of the soft labels, > 0.
        alpha: weight of the soft labels, in [0, 1].
        epochs: passes over the images; 0: only copy and prune.
        batch_size: images in a step; all of them where there are fewer.
        lr: AdamW's learning rate; it rises over a tenth of the steps, then falls to 0.
        weight_decay: of AdamW; biases and normalisation weights are not decayed.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the student.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one image.
        history_: "loss" ``(steps,)``.
        quantized_: "" for floats, else how it was quantised.
    """

    normalize_ = False

    def __init__(
        self,
        teacher: Any = None,
        channels: int | None = 16,
        sparsity: float = 0.0,
        pruning: str = "gradual",
        scope: str = "layer",
        temperature: float = 2.0,
        alpha: float = 0.5,
        epochs: int = 20,
        batch_size: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.teacher = teacher
        self.channels = channels
        self.sparsity = sparsity
        self.pruning = pruning
        self.scope = scope
        self.temperature = temperature
        self.alpha = alpha
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.random_state = random_state

    def _place(self, device: str) -> str:
        return resolve_device(device)

    def _build(self, rng: np.random.Generator) -> None:
        shape, outputs = self.input_shape_, len(self.classes_)
        with tf.device(self._device), networks.layer_dtype(self.dtype):
            if self.network_name_ == "conv4":
                network = networks.Conv4(shape, outputs, self.channels_)
                self.network_ = networks.initialise(network, rng)
            else:
                self.network_ = networks.build(self.network_name_, shape, outputs, rng, self.dtype)
        self._compile()

    def _compile(self) -> None:
        network = self.network_
        function = tf.function(
            lambda x: network(x, training=False), input_signature=self._signature(), autograph=False
        )
        # Called as a concrete function, which does not warn where many models come in a row.
        self._traced = functools.cache(function.get_concrete_function)

    def _features_of(self, x: tf.Tensor) -> tf.Tensor:
        return self.network_.features(x, training=True)

    def _signature(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec((None, *self.input_shape_), tf.as_dtype(self.dtype))]

    def _logits(self, X: np.ndarray) -> np.ndarray:
        blocks = [X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK)]
        tensors = (to_tensor(block, self._device, self.dtype) for block in blocks)
        return np.concatenate([to_array(self._traced()(x)) for x in tensors])

    def _train(
        self, examples: Examples, streams: Streams, fingerprint: Mapping[str, Any], **options: Any
    ) -> Arrays:
        return _train_student(self, examples, streams, fingerprint, **options)

    def _network_weights(self) -> Arrays:
        return networks.to_numpy(self.network_)

    def _load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        _load_floats(self, arrays)

    def _int8_layers(self, activations: bool, integers: Integers | None) -> Integers:
        found = _int8_layers(self.network_, activations, integers)
        self._compile()
        return found


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
    return fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, sparsity, scope
    )


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
    copied = fitted_copy(
        classifier, CompressedTextClassifier, CompressedImageClassifier, 0.0, "layer"
    )
    copied.sparsity = getattr(classifier, "sparsity", 0.0)
    return copied._quantize(backend, activations)
