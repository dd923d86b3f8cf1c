"""Transfer between image classes in TensorFlow: pretrain on some, fine-tune on a few of others.

The body of a network that was trained on many images of base classes makes features; a new head
learns the new classes from a few images, with the body frozen or tuned along.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fewshot_course._streams import Streams
from fewshot_course.both import image_transfer as settings
from fewshot_course.both.image_transfer import HEAD
from fewshot_course.both.training import Run, fingerprint_of
from fewshot_course.data import BatchStream
from fewshot_course.tf import networks, optim
from fewshot_course.tf._training import Networks, cross_entropy, to_tensor, train

__all__ = ["ImageClassifier"]

_BLOCK = 256  # images that pass the body at a time, outside of training


class ImageClassifier(Networks, settings.ImageClassifier):
    __doc__ = settings.ImageClassifier.__doc__
    network_: Any  # a network with ``features`` and ``head``, which no common type declares

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

    def _learn(
        self,
        X: np.ndarray,
        labels: np.ndarray,
        body: Mapping[str, np.ndarray],
        streams: Streams,
        run: Run,
    ) -> dict[str, np.ndarray]:
        network = self.network_
        frozen = self.tune == "head"
        # With a frozen body the features never change, so that the head is all that is run.
        inputs = to_tensor(self._apply("features", X) if frozen else X, run.device, self.dtype)
        targets = to_tensor(labels, run.device)
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
                loss = cross_entropy(logits, tf.gather(targets, i))
            for name, gradients in tape.gradient(loss, parameters).items():
                optimizers[name].apply(gradients)
            return {"loss": loss}

        def step(number: int) -> Mapping[str, tf.Tensor]:
            return update(to_tensor(batches.next(), run.device))

        # What was learned before is told by its weights, not by the object that held them.
        copied = copy.copy(self)
        copied.pretrained = None
        return train(
            step,
            run,
            steps=self.steps,
            modules={"network": network},
            optimizers=optimizers,
            resumables={"streams": streams, "batches": batches},
            fingerprint=fingerprint_of(copied, X, labels, *body.values()),
        )

    def _apply(self, output: str, X: np.ndarray) -> np.ndarray:
        if output == "features":
            return self._in_blocks(self.network_.features, X, _BLOCK)
        return self._in_blocks(lambda z: tf.nn.softmax(self.network_.head(z)), X, max(len(X), 1))
