"""Domain adaptation by KL divergence in PyTorch (Nguyen et al. 2022).

A stochastic encoder maps an example to a Gaussian over codes, p(z|x) = N(μ(x), σ(x)²).  Training
lowers the source's cross-entropy and, at the same time, the KL divergence between the codes of
the two domains.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from fewshot_course._checks import check_choice, check_features, check_number, check_pair
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.kl_adaptation import Domains, check_domains
from fewshot_course.both.training import describe, hash_arrays
from fewshot_course.data import BatchStream
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import normal, resolve_device, to_array, to_tensor, train
from fewshot_course.torch.divergences import batch_moments, gaussian_kl, mixture_kl

__all__ = ["Codes", "KLAdapter", "StochasticClassifier", "moment_kl", "two_way_kl"]


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
    """

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
        mean, raw = self.encoder(x).chunk(2, dim=1)
        low, high = self.log_var_bounds
        return Codes(mean, low + (high - low) * torch.sigmoid(raw), noise)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return class probabilities ``(n, k)``, averaged over ``noise`` ``(samples, 1, d)``."""
        codes = self.encode(x, torch.zeros_like(noise[0]))
        z = codes.mean + torch.exp(0.5 * codes.log_var) * noise
        return F.softmax(self.classifier(z), dim=-1).mean(0)


def moment_kl(p: Codes, q: Codes) -> Tensor:
    """KL(p‖q) of the diagonal Gaussians that have the two batches' means and variances."""
    return gaussian_kl(*batch_moments(p.mean, p.log_var), *batch_moments(q.mean, q.log_var))


def two_way_kl(
    source: Codes, target: Codes, estimator: str, weight: float, reverse_weight: float
) -> Tensor:
    """weight·KL(target‖source) + reverse_weight·KL(source‖target).

    Args:
        source: codes of a source batch.
        target: codes of a target batch.
        estimator: "moments" (closed form between Gaussians with the batches' moments) or
            "mixture" (:func:`~fewshot_course.torch.divergences.mixture_kl`).
        weight: ≥ 0.
        reverse_weight: ≥ 0.

    Returns:
        A scalar.
    """
    if estimator == "moments":
        return weight * moment_kl(target, source) + reverse_weight * moment_kl(source, target)
    forward = mixture_kl(target.z, target.mean, target.log_var, source.mean, source.log_var)
    backward = mixture_kl(source.z, source.mean, source.log_var, target.mean, target.log_var)
    return weight * forward + reverse_weight * backward


class Adapter(CourseClassifier):
    """What the adapters of this course share: everything but the alignment loss.

    A subclass stores its hyper-parameters and gives ``_alignment(source, target, ramp)``.
    """

    _facts = ("input_shape_",)

    network: str | Callable[[], nn.Module] | None
    latent_dim: int
    scale_bounds: tuple[float, float]
    warmup: float
    target_weight: float
    steps: int
    batch_size: int
    lr: float
    prediction_samples: int
    dtype: str
    random_state: int | None

    def fit(
        self,
        X_source: Any,
        y_source: Any,
        X_target: Any,
        y_target: Any = None,
        *,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on a labelled source and a mostly unlabelled target.

        Args:
            X_source: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y_source: labels ≥ 0, ``(n,)``.
            X_target: ``(m, ...)``, shaped like the source.
            y_target: labels ``(m,)``, -1 where unknown; ``None``: all unknown.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for arrays that do not fit together, a single class, a target label that
                the source does not have, or a hyper-parameter out of range.
        """
        self._check_parameters()
        domains = check_domains(X_source, y_source, X_target, y_target)
        self.classes_ = domains.classes
        self.input_shape_ = tuple(domains.X_source.shape[1:])
        streams = Streams.from_seed(self.random_state)
        device = resolve_device(device)
        self._build(streams.init, device)
        self.history_ = self._train(
            domains, streams,
            device=device, progress=progress, log_dir=log_dir, checkpoint_dir=checkpoint_dir,
        )  # fmt: skip
        return self

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

    def _train(
        self,
        data: Domains,
        streams: Streams,
        *,
        device: str,
        progress: bool,
        log_dir: str | os.PathLike[str] | None,
        checkpoint_dir: str | os.PathLike[str] | None,
    ) -> dict[str, np.ndarray]:
        network, extra = self.network_, self._extra
        xs, ys = to_tensor(data.X_source, device, self.dtype), to_tensor(data.y_source, device)
        xt = to_tensor(data.X_target, device, self.dtype)
        xl = to_tensor(data.X_labelled, device, self.dtype)
        yl = to_tensor(data.y_labelled, device)
        batches = {
            name: BatchStream(len(x), min(self.batch_size, len(x)), streams.batches)
            for name, x in (("source", xs), ("target", xt), ("labelled", xl))
            if len(x)
        }
        modules = {"network": network} | ({"extra": extra} if extra is not None else {})
        parameters = [p for module in modules.values() for p in module.parameters()]
        optimizer = optim.adam(parameters, lr=self.lr)

        def draw(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
            index = to_tensor(batches[name].next(), device)
            noise = normal(streams.noise, (len(index), self.latent_dim), device, self.dtype)
            return index, noise

        def step(number: int) -> Mapping[str, Tensor]:
            i, noise_s = draw("source", xs)
            j, noise_t = draw("target", xt)
            if self._aligns():
                # One pass: batch norm sees both domains as the one population of its averages.
                noise = torch.cat([noise_s, noise_t])
                codes_s, codes_t = network.encode(torch.cat([xs[i], xt[j]]), noise).split(len(i))
            else:  # then not even the running averages of batch norm see the target
                codes_s = network.encode(xs[i], noise_s)
            loss = F.cross_entropy(network.classifier(codes_s.z), ys[i])
            if "labelled" in batches:
                k, noise_l = draw("labelled", xl)
                logits = network.classifier(network.encode(xl[k], noise_l).z)
                loss = loss + float(self.target_weight) * F.cross_entropy(logits, yl[k])
            ramp = optim.ramp(number, self.steps, self.warmup)
            alignment = torch.zeros_like(loss)
            if self._aligns():
                alignment = self._alignment(codes_s, codes_t, ramp)
            loss = loss + alignment
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach(), "alignment": alignment.detach()}

        network.train()
        history = train(
            step,
            steps=self.steps,
            modules=modules,
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint={
                "method": type(self).__name__,
                "params": describe(self.get_params(deep=False)),
                "data": hash_arrays(
                    data.X_source, data.y_source, data.X_target, data.X_labelled, data.y_labelled
                ),
            },
            device=device,
            progress=progress,
            log_dir=log_dir,
            checkpoint_dir=checkpoint_dir,
        )
        network.eval()
        return history

    def _aligns(self) -> bool:
        """Whether the loss looks at the target's codes at all."""
        return True

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> Tensor:
        raise NotImplementedError  # what tells the adapters apart

    def encode(self, X: Any) -> np.ndarray:
        """Return the mean codes μ(x), ``(n, latent_dim)``."""
        return self._in_blocks(X, lambda x, noise: self.network_.encode(x, noise[0]).mean)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, n_classes)``.

        They are averaged over ``prediction_samples`` codes (0: the mean code alone).  The noise
        is fixed, so a prediction does not change from call to call.
        """
        return self._in_blocks(X, self._network_call)

    def _network_call(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.network_(x, noise)

    @torch.no_grad()
    def _in_blocks(self, X: Any, apply: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        check_is_fitted(self, "network_")
        X = check_features("X", X, like=self.input_shape_)
        device = str(next(self.network_.parameters()).device)
        noise = np.zeros((1, 1, self.latent_dim))
        if self.prediction_samples:
            shape = (self.prediction_samples, 1, self.latent_dim)
            noise = np.random.default_rng(0).standard_normal(shape)
        fixed = to_tensor(noise, device, self.dtype)
        blocks = [X[start : start + 1024] for start in range(0, len(X), 1024)]
        done = [to_array(apply(to_tensor(block, device, self.dtype), fixed)) for block in blocks]
        return np.concatenate(done)

    def _check_parameters(self) -> None:
        check_number("latent_dim", self.latent_dim, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=2, integer=True)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        check_choice("dtype", self.dtype, ["float32", "float64"])
        check_number("warmup", self.warmup, low=0, high=1)
        check_number("target_weight", self.target_weight, low=0)
        check_number("prediction_samples", self.prediction_samples, low=0, integer=True)
        low, high = check_pair("scale_bounds", self.scale_bounds)
        check_number("scale_bounds[0]", low, low=0, low_open=True)
        check_number("scale_bounds[1]", high, low=low)

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        return networks.to_numpy(self.network_)

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._build(np.random.default_rng(0), "cpu")
        networks.from_numpy(self.network_, arrays)
        self.network_.eval()


class KLAdapter(Adapter):
    """Align the codes of two domains by KL divergence.

    The loss of a step is

        CE(source) + target_weight · CE(labelled target)
        + r · [weight · KL(target‖source) + reverse_weight · KL(source‖target)],

    where r rises from 0 to 1 over the first part ``warmup`` of the steps: codes mean nothing
    before the classifier has begun to learn, and aligning them then can match classes wrongly.

    Args:
        network: encoder, "mlp", "conv4", a zero-argument factory of a module that returns
            ``2·latent_dim`` outputs, or ``None`` (chosen by the shape of X).
        latent_dim: size of a code.
        estimator: of the KL, "moments" or "mixture", see :func:`two_way_kl`.
        weight: of KL(target‖source), ≥ 0.  0 with ``reverse_weight=0`` trains on the source only.
        reverse_weight: of KL(source‖target), ≥ 0.
        warmup: part of the steps over which both weights rise, in [0, 1].
        target_weight: of the cross-entropy of labelled target examples, ≥ 0.
        scale_bounds: smallest and largest σ of a code.
        steps: number of updates.
        batch_size: examples of each domain in a step.
        lr: Adam's learning rate.
        prediction_samples: codes averaged in a prediction; 0 takes the mean code.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained :class:`StochasticClassifier`.
        classes_: labels, ``(k,)`` int64.
        input_shape_: shape of one example.
        history_: name → array ``(steps,)``: "loss", "alignment".
    """

    def __init__(
        self,
        network: str | Callable[[], nn.Module] | None = None,
        latent_dim: int = 32,
        estimator: str = "moments",
        weight: float = 0.05,
        reverse_weight: float = 0.05,
        warmup: float = 0.5,
        target_weight: float = 1.0,
        scale_bounds: tuple[float, float] = (0.5, 2.0),
        steps: int = 1000,
        batch_size: int = 128,
        lr: float = 1e-3,
        prediction_samples: int = 0,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.latent_dim = latent_dim
        self.estimator = estimator
        self.weight = weight
        self.reverse_weight = reverse_weight
        self.warmup = warmup
        self.target_weight = target_weight
        self.scale_bounds = scale_bounds
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.prediction_samples = prediction_samples
        self.dtype = dtype
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("estimator", self.estimator, ["moments", "mixture"])
        check_number("weight", self.weight, low=0)
        check_number("reverse_weight", self.reverse_weight, low=0)

    def _aligns(self) -> bool:
        return self.weight > 0 or self.reverse_weight > 0

    def _alignment(self, source: Codes, target: Codes, ramp: float) -> Tensor:
        return two_way_kl(
            source,
            target,
            self.estimator,
            ramp * float(self.weight),
            ramp * float(self.reverse_weight),
        )
