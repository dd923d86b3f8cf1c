"""Domain adaptation by KL divergence in PyTorch (Nguyen et al. 2022).

A stochastic encoder maps an example to a Gaussian over codes, p(z|x) = N(μ(x), σ(x)²).  Training
lowers the source's cross-entropy and, at the same time, the KL divergence between the codes of
the two domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import NOT_NEGATIVE, checked
from fewshot_course._streams import Streams
from fewshot_course.both import kl_adaptation as settings
from fewshot_course.both.kl_adaptation import Domains, computing_in
from fewshot_course.both.training import Run, check_supported, fingerprint_of
from fewshot_course.data import BatchStream
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import (
    Networks,
    normal,
    supported_precisions,
    to_tensor,
    train,
)
from fewshot_course.torch.divergences import batch_moments, gaussian_kl, mixture_kl

__all__ = [
    "Codes",
    "KLAdapter",
    "StochasticClassifier",
    "adaptation_loss",
    "moment_kl",
    "two_way_kl",
]


class Codes:
    """The codes of one batch: Gaussians and one sample of each.

    Attributes:
        mean: μ(x), ``(n, d)``.
        log_var: log σ(x)², ``(n, d)``.
        z: μ + σ·ε with standard normal ε, ``(n, d)``.
    """

    def __init__(self, mean: Tensor, log_var: Tensor, noise: Tensor) -> None:
        self.mean, self.log_var, self.noise = mean, log_var, noise
        self.z = mean + torch.exp(0.5 * log_var) * noise

    def split(self, n: int) -> tuple[Codes, Codes]:
        """Return the codes of the first ``n`` examples, and those of the others."""
        parts = (self.mean, self.log_var, self.noise)
        return Codes(*(part[:n] for part in parts)), Codes(*(part[n:] for part in parts))


class StochasticClassifier(nn.Module):
    """Encoder p(z|x) and linear classifier p(y|z).

    Args:
        encoder: maps ``(n, *input_shape)`` to ``(n, 2·latent_dim)``.
        latent_dim: d, the size of a code.
        n_classes: number of classes.
        scale_bounds: smallest and largest σ.  Without bounds, a small σ lets the mixture
            estimator of the KL explode, and a large one drowns the code in noise.

    Attributes:
        precision: what the encoder's matrix products are computed in, "float32" (that is, the
            weights' own dtype) or "bfloat16".  Codes, and all that is made of them, keep the
            dtype of the noise: differences of densities need the digits.
    """

    precision = "float32"

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        n_classes: int,
        scale_bounds: tuple[float, float] = (0.5, 2.0),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(latent_dim, n_classes)
        self.log_var_bounds = [2 * float(np.log(bound)) for bound in scale_bounds]

    def encode(self, x: Tensor, noise: Tensor) -> Codes:
        """Return the codes of ``x``; ``noise`` is standard normal ``(n, d)``."""
        with networks.mixed_precision(self.encoder, self.precision):
            outputs = self.encoder(x)
        mean, raw = outputs.to(noise.dtype).chunk(2, dim=1)
        low, high = self.log_var_bounds
        return Codes(mean, low + (high - low) * torch.sigmoid(raw), noise)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return class probabilities ``(n, k)``, averaged over ``noise`` ``(samples, 1, d)``."""
        codes = self.encode(x, torch.zeros_like(noise[0]))
        z = codes.mean + torch.exp(0.5 * codes.log_var) * noise
        return F.softmax(self.classifier(z), dim=-1).mean(0)


@checked
def moment_kl(p: Codes, q: Codes) -> Tensor:
    """KL(p‖q) of the diagonal Gaussians that have the two batches' means and variances."""
    return gaussian_kl(*batch_moments(p.mean, p.log_var), *batch_moments(q.mean, q.log_var))


@checked(estimator=("moments", "mixture"), weight=NOT_NEGATIVE, reverse_weight=NOT_NEGATIVE)
def two_way_kl(
    source: Codes,
    target: Codes,
    estimator: str,
    weight: float,
    reverse_weight: float,
    leave_one_out: bool = False,
) -> Tensor:
    """weight·KL(target‖source) + reverse_weight·KL(source‖target).

    Args:
        source: codes of a source batch.
        target: codes of a target batch.
        estimator: "moments" (closed form between Gaussians with the batches' moments) or
            "mixture" (:func:`~fewshot_course.torch.divergences.mixture_kl`).
        weight: ≥ 0.
        reverse_weight: ≥ 0.
        leave_one_out: of "mixture": whether a code's own component is left out.  That takes the
            estimate's bias away and the loss's lower bound with it: do it to measure, and never
            to train.

    Returns:
        A scalar.  "moments" is ≥ 0.  "mixture" with own components is at least
        -(weight + reverse_weight) · [log n + d · log(σ_max/σ_min) + ½ max ‖ε‖²] for n codes of d
        dimensions whose σ lies between the bounds of the network.
    """
    if estimator == "moments":
        return weight * moment_kl(target, source) + reverse_weight * moment_kl(source, target)
    of_source, of_target = (source.mean, source.log_var), (target.mean, target.log_var)
    forward = mixture_kl(target.z, *of_target, *of_source, leave_one_out)
    backward = mixture_kl(source.z, *of_source, *of_target, leave_one_out)
    return weight * forward + reverse_weight * backward


@checked(target_weight=NOT_NEGATIVE)
def adaptation_loss(
    network: StochasticClassifier,
    source: tuple[Tensor, ...],
    target: tuple[Tensor, ...],
    labelled: tuple[Tensor, ...] | None = None,
    *,
    alignment: Callable[[Codes, Codes], Tensor] | None = None,
    target_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the loss of a step, and the alignment's part of it.

        CE(source) + target_weight · CE(labelled target) + alignment(source's, target's codes)

    Args:
        network: encoder and classifier.
        source: x ``(n, ...)``, labels ``(n,)`` and standard normal noise ``(n, d)``.
        target: x ``(m, ...)`` and noise ``(m, d)``; not looked at without an alignment.
        labelled: of the target, like ``source``, or ``None``.
        alignment: takes the codes of both domains, returns a scalar; ``None``: none is wanted.
        target_weight: of the labelled target examples, ≥ 0.

    Returns:
        Two scalars.  The loss is bounded below where the alignment is.
    """
    x, y, noise = source
    if alignment is None:  # then not even the running averages of batch norm see the target
        codes_s = network.encode(x, noise)
    else:
        # One pass: batch norm sees both domains as the one population of its averages.
        both = torch.cat([x, target[0]]), torch.cat([noise, target[1]])
        codes_s, codes_t = network.encode(*both).split(len(x))
    loss = F.cross_entropy(network.classifier(codes_s.z), y)
    if labelled is not None:
        x, y, noise = labelled
        logits = network.classifier(network.encode(x, noise).z)
        loss = loss + target_weight * F.cross_entropy(logits, y)
    aligned = torch.zeros_like(loss) if alignment is None else alignment(codes_s, codes_t)
    return loss + aligned, aligned


class AdapterNetworks(Networks, settings.Adapter):
    """The three doors of the adapters in PyTorch; a subclass gives ``_alignment``."""

    def _build(self, rng: np.random.Generator, device: str) -> None:
        encoder = networks.build(
            self.network, self.input_shape_, 2 * int(self.latent_dim), rng, self.dtype
        )
        network = StochasticClassifier(
            encoder, int(self.latent_dim), len(self.classes_), self.scale_bounds
        )
        self.network_ = network.to(device=device, dtype=getattr(torch, self.dtype))
        networks.initialise(network.classifier, rng)
        self._extra = self._build_extra(rng)
        if self._extra is not None:
            self._extra.to(device=device, dtype=getattr(torch, self.dtype))

    def _build_extra(self, rng: np.random.Generator) -> nn.Module | None:
        """Make a second network that is trained along, if the alignment needs one."""
        return None

    def _learn(self, data: Domains, streams: Streams, run: Run) -> dict[str, np.ndarray]:
        check_supported(self.precision, run.device, supported_precisions(run.device))
        modules = {"network": self.network_} | ({"extra": self._extra} if self._extra else {})
        optimizer = optim.adam([p for m in modules.values() for p in m.parameters()], lr=self.lr)
        arrays: dict[str, tuple[np.ndarray, ...]] = {
            "source": (data.X_source, data.y_source),
            "target": (data.X_target,),
            "labelled": (data.X_labelled, data.y_labelled),
        }
        tensors = {
            name: (to_tensor(X, run.device, self.dtype), *(to_tensor(y, run.device) for y in rest))
            for name, (X, *rest) in arrays.items()
            if len(X)
        }
        batches = {
            name: BatchStream(len(X), min(self.batch_size, len(X)), streams.batches)
            for name, (X, *_) in tensors.items()
        }

        def draw(name: str) -> tuple[Tensor, ...]:
            index = to_tensor(batches[name].next(), run.device)
            noise = normal(streams.noise, (len(index), self.latent_dim), run.device, self.dtype)
            return (*(tensor[index] for tensor in tensors[name]), noise)

        def step(number: int) -> Mapping[str, Tensor]:
            drawn = {name: draw(name) for name in batches}
            ramp = optim.ramp(number, self.steps, self.warmup)
            loss, aligned = adaptation_loss(
                self.network_, drawn["source"], drawn["target"], drawn.get("labelled"),
                alignment=partial(self._alignment, ramp=ramp) if self._aligns() else None,
                target_weight=float(self.target_weight),
            )  # fmt: skip
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach(), "alignment": aligned.detach()}

        with computing_in(self.network_, self.precision):
            return train(
                step,
                run,
                steps=self.steps,
                modules=modules,
                optimizers={"optimizer": optimizer},
                resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
                fingerprint=fingerprint_of(
                    self, *(part for parts in arrays.values() for part in parts)
                ),
            )

    def _apply(self, output: str, X: np.ndarray, noise: np.ndarray) -> np.ndarray:
        fixed = to_tensor(noise, self._device, self.dtype)
        if output == "codes":
            return self._in_blocks(lambda x: self.network_.encode(x, fixed[0]).mean, X)
        return self._in_blocks(lambda x: self.network_(x, fixed), X)


class KLAdapter(AdapterNetworks, settings.KLAdapter):
    __doc__ = settings.KLAdapter.__doc__

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> Tensor:
        weight, reverse = ramp * float(self.weight), ramp * float(self.reverse_weight)
        return two_way_kl(source, target, self.estimator, weight, reverse, self.leave_one_out)
