"""Fine-tuning a small pretrained BERT on few labelled texts, in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import NOT_NEGATIVE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import fine_tuning as settings
from fewshot_course.both.bert import BertConfig
from fewshot_course.both.fine_tuning import LSTM_UNITS, TextData, in_batches
from fewshot_course.both.probe import cross_entropy_of
from fewshot_course.both.texts import Tokens
from fewshot_course.both.training import Run
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import Updater, resolve_device, to_array, to_tensor, train
from fewshot_course.torch.encoder import Encoder, dropout_masks, encode, keep_mask, mean_pool

__all__ = [
    "TextClassifier",
    "TextNetwork",
    "contrastive_pair_loss",
    "l2_sp_penalty",
    "softmax_cross_entropy",
    "softmax_gradient",
    "tuning_loss",
]


@checked
def softmax_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over a batch of weight · (log Σ_c exp z_c - z_y), a scalar.

    Minus the log-likelihood of the labels under p = softmax(z), so its minimum is the maximum of
    the likelihood.

    Args:
        logits: z, ``(n, C)``.
        labels: y, class indices ``(n,)`` int64.
        weights: ``(n,)``; ``None``: all 1.
    """
    losses = torch.logsumexp(logits, dim=1) - logits.gather(1, labels[:, None])[:, 0]
    return losses.mean() if weights is None else (weights * losses).mean()


@checked
def softmax_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of :func:`softmax_cross_entropy` by the logits: (p - y) / n.

    Args:
        logits: ``(n, C)``.
        labels: class indices ``(n,)`` int64; y is their one-hot form.
    """
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return (F.softmax(logits, dim=1) - one_hot) / len(logits)


@checked
def l2_sp_penalty(weights: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    """Return ½ Σ ‖w - w⁰‖²: the distance from the pretrained weights (L2-SP, Li et al. 2018).

    Args:
        weights: tensors of any shapes.
        start: the same tensors before fine-tuning.
    """
    distances = [(w - w0).square().sum() for w, w0 in zip(weights, start, strict=True)]
    return 0.5 * torch.stack(distances).sum()


@checked
def contrastive_pair_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Return the squared error of cosine similarities: 1 within a class, 0 between classes.

    The loss of SetFit's first stage (Tunstall et al. 2022), over all pairs i < j of the batch;
    pairs within and between classes count one half each, as if as many were drawn of both.

    Args:
        features: ``(n, d)``, of any length.
        labels: ``(n,)`` int64.

    Returns:
        A scalar.  A kind of pair that does not occur adds 0.
    """
    directions = F.normalize(features, dim=1)
    cosine = directions @ directions.T
    pairs = torch.ones_like(cosine).triu(1)
    within = pairs * (labels[:, None] == labels).to(cosine.dtype)
    between = pairs - within
    pull = (within * (1 - cosine).square()).sum() / within.sum().clamp(min=1)
    push = (between * cosine.square()).sum() / between.sum().clamp(min=1)
    return 0.5 * (pull + push)


class TextNetwork(nn.Module):
    """BERT and a head: the mean over the tokens, or an LSTM over them, then a linear layer.

    Args:
        config: the encoder's architecture.
        n_outputs: width of the head.
        head: "linear" or "lstm".
        lora_rank: see :class:`~fewshot_course.torch.encoder.Encoder`.
        lora_alpha: likewise.
        normalize: whether features get the length 1 before the linear layer.
    """

    def __init__(
        self,
        config: BertConfig,
        n_outputs: int,
        head: str = "linear",
        lora_rank: int = 0,
        lora_alpha: float = 16.0,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.bert = Encoder(config, lora_rank, lora_alpha)
        self.width = config.hidden_size
        self.lstm: nn.LSTM | None = None
        if head == "lstm":
            self.lstm = nn.LSTM(config.hidden_size, LSTM_UNITS, batch_first=True)
            self.width = LSTM_UNITS
        self.head = nn.Linear(self.width, n_outputs)

    def pool(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Map the token sequence ``(n, L, d)`` to one vector a text, ``(n, width)``."""
        if self.lstm is None:
            return mean_pool(sequence, mask)
        outputs, _ = self.lstm(sequence)
        last = mask.sum(1) - 1  # padding comes after the text and cannot reach it
        return outputs[torch.arange(len(last), device=last.device), last]

    def classify(self, sequence: Tensor, mask: Tensor, dropout: Sequence[Tensor] = ()) -> Tensor:
        """Map the token sequence to logits ``(n, n_outputs)``; the last factor drops features."""
        features = self.pool(sequence, mask)
        if self.normalize:
            features = F.normalize(features, dim=1)
        return self.head(features * dropout[-1] if dropout else features)

    def features(self, ids: Tensor, mask: Tensor, dropout: Sequence[Tensor] = ()) -> Tensor:
        """Map token numbers ``(n, L)`` to one vector a text, ``(n, width)``."""
        return self.pool(self.bert(ids, mask, dropout or None), mask)

    def forward(self, ids: Tensor, mask: Tensor, dropout: Sequence[Tensor] = ()) -> Tensor:
        """Map token numbers ``(n, L)`` to logits ``(n, n_outputs)``."""
        return self.classify(self.bert(ids, mask, dropout[:-1] or None), mask, dropout)


@checked(objective=("cross_entropy", "contrastive"), l2_sp=NOT_NEGATIVE)
def tuning_loss(
    network: TextNetwork,
    x: Tensor,
    mask: Tensor,
    labels: Tensor,
    weights: Tensor,
    dropout: Sequence[Tensor] = (),
    *,
    objective: str = "cross_entropy",
    frozen: bool = False,
    held: Sequence[Tensor] = (),
    anchors: Sequence[Tensor] = (),
    l2_sp: float = 0.0,
) -> Tensor:
    """Return the loss of a step: of the texts, and of the distance from the pretrained weights.

        cross-entropy (or the loss of pairs) + l2_sp · ½ ‖w - w⁰‖²

    Args:
        network: encoder and head.
        x: token numbers ``(n, L)``, or, of a frozen encoder, its outputs ``(n, L, d)``.
        mask: 1 for a token, 0 for padding, ``(n, L)``.
        labels: class indices ``(n,)``.
        weights: of each text, ``(n,)``.
        dropout: factors, see ``encoder.dropout_masks``; the last one is the head's.
        objective: "cross_entropy" or "contrastive".
        frozen: whether the encoder has been run already.
        held: weights that L2-SP holds.
        anchors: where they started.
        l2_sp: strength of the pull, ≥ 0.

    Returns:
        A scalar, ≥ 0, in the dtype of ``weights``.
    """
    if objective == "contrastive":
        features = network.features(x, mask, dropout).to(weights.dtype)
        loss = contrastive_pair_loss(features, labels)
    else:
        forward = network.classify if frozen else network
        logits = forward(x, mask, dropout=dropout).to(weights.dtype)
        loss = softmax_cross_entropy(logits, labels, weights)
    return loss + l2_sp * l2_sp_penalty(held, anchors) if held else loss


class TextClassifier(settings.TextClassifier):
    __doc__ = settings.TextClassifier.__doc__

    _resolve = staticmethod(resolve_device)

    def _build(self, config: BertConfig, arrays: Mapping[str, np.ndarray]) -> None:
        self.network_ = TextNetwork(
            config, len(self.classes_), self.head, self._rank, self.lora_alpha,
            normalize=self.objective == "contrastive",
        ).to(getattr(torch, self.dtype)).eval()  # fmt: skip
        networks.from_numpy(self.network_, arrays)
        self.network_.to(self._device)

    def _learn(
        self, data: TextData, streams: Streams, fingerprint: Mapping[str, Any], run: Run
    ) -> dict[str, np.ndarray]:
        network, device = self.network_, run.device
        config, named = network.bert.config, dict(network.named_parameters())
        frozen = data.sequences is not None
        data, aside = self._split(data, streams)
        batches = self._batches(data, streams)
        schedule = self._schedule(batches.batches_per_epoch)
        trained = self._trained(config)
        for name, parameter in named.items():
            parameter.requires_grad_(name in trained)
        body = [named[name] for name in trained if name.startswith("bert.")]
        top = [named[name] for name in trained if not name.startswith("bert.")]
        if self.objective == "contrastive":
            top = []
        held = [named[name] for name in self._anchored(config)]
        anchors = [weight.detach().clone() for weight in held]
        rates = {"bert": self._lr(), "head": self.head_lr}
        optimizers = {
            name: optim.adamw(weights, lr=rates[name], weight_decay=self.weight_decay)
            for name, weights in {"bert": body, "head": top}.items()
            if weights
        }
        forward: Callable[..., Tensor] = network.classify if frozen else network

        def loss_of(*tensors: Tensor) -> Tensor:
            x, mask, labels, weights, *dropout = tensors
            return tuning_loss(
                network, x, mask, labels, weights, dropout, objective=self.objective,
                frozen=frozen, held=held, anchors=anchors, l2_sp=self.l2_sp,
            )  # fmt: skip

        update = Updater(
            loss_of, list(optimizers.values()),
            device=device, precision=self.precision, accumulate=self.accumulate,
        )  # fmt: skip

        def step(number: int) -> Mapping[str, Any]:
            for name, optimizer in optimizers.items():
                optim.set_learning_rate(optimizer, rates[name] * schedule.factor(number))
            index = batches.next()
            x, mask = (to_tensor(array, device) for array in data.inputs(index))
            dropout = self._dropout_factors(mask.shape, streams.dropout, frozen)
            labels = to_tensor(data.labels[index], device)
            weights = to_tensor(data.weights[index], device, self.dtype)
            loss = update(x, mask, labels, weights, *dropout)
            return {"loss": loss} | schedule.after(number, loss, validate if aside else None, keep)

        best = copy.deepcopy(network) if aside else None

        def keep() -> None:
            assert best is not None
            best.load_state_dict(network.state_dict())

        @torch.no_grad()
        def validate() -> float:
            assert aside is not None
            inputs = [[to_tensor(a, device) for a in aside.inputs(i)] for i in aside.parts()]
            logits = np.concatenate([to_array(forward(*pair)) for pair in inputs])
            return cross_entropy_of(logits, aside.labels, aside.weights)

        history = train(
            step,
            run,
            steps=schedule.steps,
            modules={"network": network} | ({"best": best} if best is not None else {}),
            optimizers=optimizers,
            resumables={
                "streams": streams,
                "batches": batches,
                "schedule": schedule,
                "scale": update.scale,
            },
            fingerprint=fingerprint,
            stop=lambda: schedule.stopped,
        )
        if best is not None:
            network.load_state_dict(best.state_dict())
            self.best_epoch_ = schedule.best_epoch
        return history

    def _apply(self, output: str, tokens: Tokens) -> list[np.ndarray]:
        network = self.network_
        function = {"logits": network, "features": network.features, "sequence": network.bert}[
            output
        ]

        @torch.inference_mode()
        def one(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return to_array(function(to_tensor(ids, self._device), to_tensor(mask, self._device)))

        return in_batches(tokens, one)

    def _weights(self, arrays: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        every = networks.to_numpy(self.network_)
        if arrays is not None:
            every |= arrays
            networks.from_numpy(self.network_, every)
        return every

    def _encode(self, texts: list[str]) -> np.ndarray:
        return encode(
            texts, self.model, normalize=True, max_length=self.max_length, dtype=self.dtype,
            cache=self.cache, device=self._device,
        )  # fmt: skip

    def _dropout_factors(
        self, shape: Sequence[int], rng: np.random.Generator, frozen: bool
    ) -> list[Tensor]:
        """Draw the factors of one step: the encoder's, unless it is frozen, then the head's."""
        if not self.dropout:
            return []
        network, place = self.network_, (self._device, self.dtype)
        factors = [] if frozen else dropout_masks(
            network.bert.config, (shape[0], shape[1]), self.dropout, rng, *place
        )  # fmt: skip
        if self.objective == "contrastive":
            return factors
        return [*factors, keep_mask((shape[0], network.width), self.dropout, rng, *place)]
