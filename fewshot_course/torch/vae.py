"""Variational autoencoders that learn from few labels, in PyTorch (Kingma et al. 2014).

The generative story of M1 is p(z) p(x|z); a classifier then learns from z.  That of M2 is
p(y) p(z) p(x|y, z), so that a label is a latent variable that you sometimes see.  M1+M2 puts
M2 on top of the codes of M1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_features,
    check_number,
    check_pair,
)
from fewshot_course._streams import Streams
from fewshot_course.both.generative import (
    GenerativeLabeler,
    check_training,
    check_unit_interval,
    check_widths,
    one_hot,
)
from fewshot_course.both.training import describe, hash_arrays
from fewshot_course.data import BatchStream
from fewshot_course.torch import networks, optim
from fewshot_course.torch._training import normal, resolve_device, to_array, to_tensor, train
from fewshot_course.torch.divergences import gaussian_log_prob
from fewshot_course.weights import part_of

__all__ = [
    "VAE",
    "LabelledMLP",
    "VAEPseudoLabeler",
    "bernoulli_log_prob",
    "elbo",
    "importance_bound",
    "kl_to_prior",
    "sample_codes",
    "unlabelled_bound",
]


def kl_to_prior(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = -½ Σ_j (1 + log σ_j² - μ_j² - σ_j²), summed over dimensions.

    Args:
        mean: μ, ``(..., d)``.
        log_var: log σ², ``(..., d)``.

    Returns:
        ``(...)``, ≥ 0, in nats (Kingma & Welling 2014, appendix B).
    """
    return -0.5 * (1 + log_var - mean.square() - torch.exp(log_var)).sum(-1)


def sample_codes(mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """Return z = μ + σ·ε, the reparametrised sample of N(μ, σ²).

    Args:
        mean: μ, ``(..., d)``.
        log_var: log σ², ``(..., d)``.
        noise: standard normal ε, ``(samples, ..., d)``.

    Returns:
        ``(samples, ..., d)``.
    """
    return mean + torch.exp(0.5 * log_var) * noise


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of independent Bernoulli variables, summed over dimensions.

    x·log s(l) + (1 - x)·log(1 - s(l)) = x·l - log(1 + eˡ), with the sigmoid s.

    Args:
        x: in [0, 1], ``(..., d)``.  Grey values count as probabilities of a white pixel.
        logits: l, ``(..., d)``, unbounded.

    Returns:
        ``(...)``, in nats.
    """
    return (x * logits - F.softplus(logits)).sum(-1)


def elbo(log_px: Tensor, mean: Tensor, log_var: Tensor, kl_weight: float = 1.0) -> Tensor:
    """Evidence lower bound E_q[log p(x|z)] - KL(q(z|x) ‖ p(z)) ≤ log p(x), per example.

    Args:
        log_px: log p(x|z) of samples z ~ q(z|x), ``(samples, ...)``.
        mean: of q(z|x), ``(..., d)``.
        log_var: of q(z|x), ``(..., d)``.
        kl_weight: of the KL; only 1 gives a bound on log p(x).

    Returns:
        ``(...)``, in nats (Kingma & Welling 2014, equation 7).
    """
    return log_px.mean(0) - kl_weight * kl_to_prior(mean, log_var)


def importance_bound(log_px: Tensor, z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Importance-weighted bound log 1/k Σ_s p(x|z_s) p(z_s) / q(z_s|x) (Burda et al. 2016).

    Its mean rises with the number k of samples, from the ELBO (k = 1) towards log p(x).

    Args:
        log_px: log p(x|z_s), ``(k, ...)``.
        z: samples of q(z|x), ``(k, ..., d)``.
        mean: of q(z|x), ``(..., d)``.
        log_var: of q(z|x), ``(..., d)``.

    Returns:
        ``(...)``, in nats.
    """
    nothing = torch.zeros_like(z)
    log_ratio = log_px + gaussian_log_prob(z, nothing, nothing)
    log_ratio = log_ratio - gaussian_log_prob(z, mean, log_var)
    return torch.logsumexp(log_ratio, 0) - math.log(z.shape[0])


def unlabelled_bound(bounds: Tensor, log_q: Tensor) -> Tensor:
    """M2's bound on log p(x): Σ_y q(y|x) [L(x, y) - log q(y|x)] (Kingma et al. 2014, eq. 7).

    Args:
        bounds: L(x, y), a lower bound on log p(x, y), for every class, ``(..., C)``.
        log_q: log q(y|x), ``(..., C)``, normalised.

    Returns:
        ``(...)``, in nats.  At most log Σ_y exp L(x, y), and equal to it where q(y|x) is
        proportional to exp L(x, y).
    """
    return (torch.exp(log_q) * (bounds - log_q)).sum(-1)


class LabelledMLP(nn.Module):
    """A fully connected network of x and, where there are classes, of a label: MLP([x, y]).

    The first layer's product is taken apart, W [x, y] = W_x x + W_y y.  So x with each of C
    labels costs one product with W_x, not C, and nobody writes [x, y] out.

    Args:
        n_inputs: size of x.
        n_classes: C, size of a one-hot y; 0: no label.
        n_outputs: width of the head.
        hidden: widths of the hidden layers, one at least.
    """

    def __init__(
        self, n_inputs: int, n_classes: int, n_outputs: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.n_inputs = n_inputs
        self.net = networks.MLP((n_inputs + n_classes,), n_outputs, hidden)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Map x ``(..., n, d)`` and one-hot y, which broadcasts to it, to ``(..., n, out)``.

        With y of shape ``(C, 1, C)`` the result has every class: ``(C, n, out)``.
        """
        first, *others = self.net.body
        assert isinstance(first, nn.Linear)
        weight, bias = first.weight, first.bias
        if y is None:
            hidden = F.linear(x, weight, bias)
        else:
            hidden = F.linear(x, weight[:, : self.n_inputs], bias)
            hidden = hidden + F.linear(y, weight[:, self.n_inputs :])
        for layer in others:
            hidden = layer(hidden)
        return self.net.head(hidden)


class VAE(nn.Module):
    """Encoder q(z|x[, y]) and decoder p(x|z[, y]), with p(z) = N(0, I).

    Args:
        n_features: d, size of x.
        latent_dim: size of z.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        decoder: "bernoulli" (x in [0, 1]) or "gaussian" (mean and variance of each feature).
        n_classes: of y; 0: no label.
        noise_bounds: smallest and largest standard deviation of a Gaussian decoder.  Without a
            bound, a feature that hardly varies lets the likelihood grow without end.
    """

    def __init__(
        self,
        n_features: int,
        latent_dim: int,
        hidden: tuple[int, ...],
        decoder: str,
        n_classes: int = 0,
        noise_bounds: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        super().__init__()
        self.kind = decoder
        self.log_var_bounds = [2 * math.log(bound) for bound in noise_bounds]
        outputs = n_features if decoder == "bernoulli" else 2 * n_features
        self.encoder = LabelledMLP(n_features, n_classes, 2 * latent_dim, hidden)
        self.decoder = LabelledMLP(latent_dim, n_classes, outputs, hidden[::-1])

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x, y), each ``(..., n, latent_dim)``."""
        mean, log_var = self.encoder(x, y).chunk(2, dim=-1)
        return mean, log_var

    def decode(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the parameters of p(x|z, y): logits twice, or mean and log-variance."""
        out = self.decoder(z, y)
        if self.kind == "bernoulli":
            return out, out
        mean, raw = out.chunk(2, dim=-1)
        low, high = self.log_var_bounds
        return mean, low + (high - low) * torch.sigmoid(raw)

    def log_likelihood(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return log p(x|z, y), summed over features; x broadcasts to the shape of z."""
        first, second = self.decode(z, y)
        if self.kind == "bernoulli":
            return bernoulli_log_prob(x, first)
        return gaussian_log_prob(x, first, second)

    def mean_of(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the mean of p(x|z, y)."""
        first, _ = self.decode(z, y)
        return torch.sigmoid(first) if self.kind == "bernoulli" else first

    def bound(
        self, x: Tensor, noise: Tensor, y: Tensor | None = None, kl_weight: float = 1.0
    ) -> Tensor:
        """Return the ELBO of log p(x|y), ``(..., n)``; noise is ``(samples, ..., n, d)``."""
        mean, log_var = self.encode(x, y)
        z = sample_codes(mean, log_var, noise)
        return elbo(self.log_likelihood(x, z, y), mean, log_var, kl_weight)

    def bounds(self, x: Tensor, noise: Tensor, n_classes: int, kl_weight: float = 1.0) -> Tensor:
        """Return the bound on log p(x, y) of every class in one pass, ``(n, C)``.

        The prior p(y) is 1/C.  Noise is ``(samples, C, n, latent_dim)``.
        """
        every = torch.eye(n_classes, dtype=x.dtype, device=x.device)[:, None]
        return self.bound(x, noise, every, kl_weight).T - math.log(n_classes)


class VAEPseudoLabeler(GenerativeLabeler):
    """Learn from few labels with a variational autoencoder (Kingma et al. 2014).

    - "m1": a VAE learns codes z from all examples; a classifier learns from the labelled codes.
    - "m2": the label is a latent variable.  A step lowers

          -[l·mean L(x, y) + u·mean U(x)] / (l + u) + classifier_weight · CE(labelled)

      with the bounds L on log p(x, y) of l labelled examples and U on log p(x) of u unlabelled
      ones, see :func:`unlabelled_bound`.
    - "m1m2": M2 on the codes of M1.

    Args:
        model: "m1", "m2" or "m1m2".
        latent_dim: size of a code, ≥ 1.
        hidden: widths of the hidden layers of encoder, classifier and (reversed) decoder.
        decoder: "bernoulli", "gaussian", or ``None``: Bernoulli for images, else Gaussian.  A
            Gaussian decoder expects features of about unit scale.
        noise_bounds: smallest and largest standard deviation of a Gaussian decoder.
        classifier_weight: α, what the cross-entropy of the labels counts in M2, ≥ 0.
        kl_weight: final weight of the KL; 1 is the bound.
        kl_warmup: part of the steps over which the weight of the KL rises from 0, in [0, 1];
            without, the decoder may learn to ignore z before z says anything.
        feature_steps: updates of M1's VAE ("m1", "m1m2").
        steps: updates with labels: of M1's classifier, or of M2.
        batch_size: labelled examples in a step.
        unlabelled_batch_size: unlabelled examples in a step; all kinds in a step of M1's VAE.
        lr: Adam's learning rate.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        features_: M1's :class:`VAE`, or ``None``.
        vae_: M2's :class:`VAE`, or ``None``.
        classifier_: the network of q(y|x), or q(y|z) on codes of M1.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one example.
        pseudo_labels_: class of each example given to ``fit``, ``(n,)``; known labels as given.
        confidence_: probability of that class, ``(n,)`` in [0, 1]; 1 where the label is known.
        history_: name → array ``(steps,)``: "loss", "classifier_loss", and for M2
            "labelled_bound" and "unlabelled_bound".
        feature_history_: name → array ``(feature_steps,)``: "loss" (minus the bound), "kl",
            "kl_weight"; empty for M2.
    """

    features_: Any  # networks or None, as the model needs them
    vae_: Any
    classifier_: Any

    def __init__(
        self,
        model: str = "m2",
        latent_dim: int = 50,
        hidden: tuple[int, ...] = (500,),
        decoder: str | None = None,
        noise_bounds: tuple[float, float] = (0.1, 2.0),
        classifier_weight: float = 50.0,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.2,
        feature_steps: int = 1000,
        steps: int = 1000,
        batch_size: int = 32,
        unlabelled_batch_size: int = 100,
        lr: float = 1e-3,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.model = model
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.decoder = decoder
        self.noise_bounds = noise_bounds
        self.classifier_weight = classifier_weight
        self.kl_weight = kl_weight
        self.kl_warmup = kl_warmup
        self.feature_steps = feature_steps
        self.steps = steps
        self.batch_size = batch_size
        self.unlabelled_batch_size = unlabelled_batch_size
        self.lr = lr
        self.dtype = dtype
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        classes: Any = None,
        device: str = "auto",
        progress: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on labelled and unlabelled examples together.

        Args:
            X: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y: labels ≥ 0, and -1 where unknown, ``(n,)``.
            classes: all the labels there are; the classes found in ``y`` if not given.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for NaN, integer images, values outside [0, 1] before a Bernoulli
                decoder, no labelled example at all or of a class, a single class, arrays that
                do not fit together, or a hyper-parameter out of range.
            FloatingPointError: if the loss becomes NaN or infinite.
        """
        flat, y, labels = self._prepare(X, y, classes)
        check_unit_interval(flat, self._decoder())
        streams = Streams.from_seed(self.random_state)
        device = resolve_device(device)
        self._build(streams.init, device)
        options: dict[str, Any] = {"device": device, "progress": progress}
        folders = {"log_dir": log_dir, "checkpoint_dir": checkpoint_dir}
        self.feature_history_ = {}
        if self.features_ is not None:
            self.feature_history_ = self._train_features(
                flat, streams, **options, **_inside(folders, "features")
            )
        self.history_ = self._train_labels(
            flat, labels, streams, **options, **_inside(folders, "labels")
        )
        self._note_pseudo_labels(X, y)
        return self

    def _decoder(self) -> str:
        return self.decoder or ("bernoulli" if len(self.input_shape_) > 1 else "gaussian")

    def _build(self, rng: np.random.Generator, device: str) -> None:
        n_features, latent = math.prod(self.input_shape_), int(self.latent_dim)
        n_classes, hidden = len(self.classes_), check_widths("hidden", self.hidden)
        first, second = self.model != "m2", self.model != "m1"
        below = latent if first else n_features  # what M2 and the classifier look at
        kind = "gaussian" if first else self._decoder()

        def place(module: nn.Module) -> Any:
            module = networks.initialise(module.to(getattr(torch, self.dtype)), rng)
            return module.to(device)

        bounds = self.noise_bounds
        self.features_ = self.vae_ = None
        if first:
            self.features_ = place(
                VAE(n_features, latent, hidden, self._decoder(), noise_bounds=bounds)
            )
        if second:
            self.vae_ = place(VAE(below, latent, hidden, kind, n_classes, bounds))
        self.classifier_ = place(networks.MLP((below,), n_classes, hidden))
        self._device = device

    def _train_features(
        self, X: np.ndarray, streams: Streams, *, device: str, **options: Any
    ) -> dict[str, np.ndarray]:
        """Train M1's VAE on all examples, labelled or not."""
        vae = self.features_
        xs = to_tensor(X, device, self.dtype)
        batches = {"all": BatchStream(len(xs), self.unlabelled_batch_size, streams.batches)}
        optimizer = optim.adam(vae.parameters(), lr=self.lr)

        def step(number: int) -> Mapping[str, Tensor | float]:
            i = to_tensor(batches["all"].next(), device)
            noise = normal(streams.noise, (1, len(i), self.latent_dim), device, self.dtype)
            weight = self._kl_weight(number, self.feature_steps)
            x = xs[i]
            mean, log_var = vae.encode(x)
            log_px = vae.log_likelihood(x, sample_codes(mean, log_var, noise))
            loss = -elbo(log_px, mean, log_var, weight).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            kl = kl_to_prior(mean.detach(), log_var.detach()).mean()
            return {"loss": loss.detach(), "kl": kl, "kl_weight": weight}

        return self._run(
            "features", step, self.feature_steps, {"features": vae}, optimizer, streams, batches,
            X, device=device, **options,
        )  # fmt: skip

    def _train_labels(
        self, X: np.ndarray, labels: np.ndarray, streams: Streams, *, device: str, **options: Any
    ) -> dict[str, np.ndarray]:
        """Train the classifier, and M2 along with it."""
        vae, classifier, n_classes = self.vae_, self.classifier_, len(self.classes_)
        known = labels != UNLABELLED
        look = self._lookup(X, device)
        places = {
            "labelled": to_tensor(np.flatnonzero(known), device),
            "unlabelled": to_tensor(np.flatnonzero(~known), device),
        }
        ys = to_tensor(np.where(known, labels, 0), device)
        ones = to_tensor(one_hot(np.where(known, labels, 0), n_classes), device, self.dtype)
        sizes = {"labelled": self.batch_size, "unlabelled": self.unlabelled_batch_size}
        batches = {
            name: BatchStream(len(places[name]), sizes[name], streams.batches)
            for name in (("labelled", "unlabelled") if vae is not None else ("labelled",))
            if len(places[name])
        }
        modules = {"classifier": classifier} | ({"vae": vae} if vae is not None else {})
        parameters = [p for module in modules.values() for p in module.parameters()]
        optimizer = optim.adam(parameters, lr=self.lr)
        share = float(known.mean())

        def draw(name: str) -> tuple[Tensor, Tensor]:
            i = places[name][to_tensor(batches[name].next(), device)]
            return i, look(i, normal(streams.noise, (len(i), self.latent_dim), device, self.dtype))

        def noise(*shape: int) -> Tensor:
            return normal(streams.noise, (1, *shape, self.latent_dim), device, self.dtype)

        def step(number: int) -> Mapping[str, Tensor]:
            i, x = draw("labelled")
            cross_entropy = F.cross_entropy(classifier(x), ys[i])
            told = {"classifier_loss": cross_entropy.detach()}
            loss = cross_entropy
            if vae is not None:
                weight = self._kl_weight(number, self.steps)
                bound = vae.bound(x, noise(len(i)), ones[i], weight).mean() - math.log(n_classes)
                loss = self.classifier_weight * cross_entropy - share * bound
                told["labelled_bound"] = bound.detach()
                if "unlabelled" in batches:
                    j, x = draw("unlabelled")
                    bounds = vae.bounds(x, noise(n_classes, len(j)), n_classes, weight)
                    log_q = F.log_softmax(classifier(x), dim=1)
                    bound = unlabelled_bound(bounds, log_q).mean()
                    loss = loss - (1 - share) * bound
                    told["unlabelled_bound"] = bound.detach()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach(), **told}

        return self._run(
            "labels", step, self.steps, modules, optimizer, streams, batches, X, labels,
            device=device, **options,
        )  # fmt: skip

    def _lookup(self, X: np.ndarray, device: str) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what M2 and the classifier see of examples: x itself, or a code of M1."""
        if self.features_ is None:
            xs = to_tensor(X, device, self.dtype)
            return lambda index, noise: xs[index]
        mean, log_var = (to_tensor(part, device) for part in self._encode_blocks(X))
        return lambda index, noise: sample_codes(mean[index], log_var[index], noise)

    def _run(
        self,
        stage: str,
        step: Callable[[int], Mapping[str, Any]],
        steps: int,
        modules: dict[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        streams: Streams,
        batches: dict[str, BatchStream],
        *data: np.ndarray,
        **options: Any,
    ) -> dict[str, np.ndarray]:
        return train(
            step,
            steps=steps,
            modules=modules,
            optimizers={"optimizer": optimizer},
            resumables={"streams": streams} | {f"batches.{k}": v for k, v in batches.items()},
            fingerprint={
                "method": f"{type(self).__name__}.{stage}",
                "params": describe(self.get_params(deep=False)),
                "data": hash_arrays(*data),
            },
            **options,
        )

    def _kl_weight(self, step: int, steps: int) -> float:
        return float(self.kl_weight) * optim.ramp(step, steps, self.kl_warmup)

    # ------------------------------------------------------------------ what a fitted one can do

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)``, in the order of ``classes_``."""
        return self._in_blocks(self._flat(X), lambda x: F.softmax(self._logits(x), dim=1))

    def encode(self, X: Any) -> np.ndarray:
        """Return the mean codes of q(z|x), ``(n, latent_dim)``.

        M1 and M1+M2: codes of M1.  M2: codes of q(z|x, y) with the most probable class y.
        """
        return self._in_blocks(self._flat(X), lambda x: self._codes(x)[0])

    def reconstruct(self, X: Any) -> np.ndarray:
        """Return the decoder's mean at the mean codes, shaped like ``X``."""

        def apply(x: Tensor) -> Tensor:
            z, y = self._codes(x)
            return self._first().mean_of(z, y)

        return self._in_blocks(self._flat(X), apply).reshape(-1, *self.input_shape_)

    def bound(self, X: Any, samples: int = 1) -> np.ndarray:
        """Return a lower bound on log p(x) of each example in nats, ``(n,)``.

        M1 and M1+M2: the ELBO of M1.  M2: its bound for unlabelled examples.  The noise is
        fixed.

        Args:
            X: examples.
            samples: codes drawn for each, ≥ 1.
        """
        check_number("samples", samples, low=1, integer=True)
        rng = np.random.default_rng(0)

        def apply(x: Tensor) -> Tensor:
            classes = len(self.classes_)
            around = (len(x), self.latent_dim)
            if self.features_ is not None:
                noise = normal(rng, (samples, *around), self._device, self.dtype)
                return self.features_.bound(x, noise)
            noise = normal(rng, (samples, classes, *around), self._device, self.dtype)
            log_q = F.log_softmax(self.classifier_(x), dim=1)
            return unlabelled_bound(self.vae_.bounds(x, noise, classes), log_q)

        return self._in_blocks(self._flat(X), apply)

    def sample(
        self, n: int, y: Any = None, random_state: int | None = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make new examples with their classes.

        Args:
            n: how many.
            y: a class, or one for each, ``(n,)``; ``None``: equally many of each.  M1 cannot
                choose: its samples have the class that the classifier sees in them.
            random_state: seed of the noise.

        Returns:
            Means of p(x|z, y) ``(n, *input_shape)``, and classes ``(n,)``.

        Raises:
            ValueError: for an unknown class, or any class asked of M1.
        """
        check_is_fitted(self, "classifier_")
        rng = np.random.default_rng(random_state)
        if self.model == "m1" and y is not None:
            raise ValueError("y cannot be chosen with model='m1', whose decoder knows no label.")
        index = self._wanted_classes(n, y, rng)
        z = normal(rng, (n, self.latent_dim), self._device, self.dtype)
        ones = to_tensor(one_hot(index, len(self.classes_)), self._device, self.dtype)
        with torch.no_grad():
            below = z if self.vae_ is None else self.vae_.mean_of(z, ones)
            x = to_array(below if self.features_ is None else self.features_.mean_of(below))
            if self.model == "m1":
                index = to_array(self.classifier_(z).argmax(dim=1))
        return x.reshape(n, *self.input_shape_), self.classes_[index]

    def _first(self) -> VAE:
        return self.vae_ if self.features_ is None else self.features_

    def _logits(self, x: Tensor) -> Tensor:
        return self.classifier_(x if self.features_ is None else self.features_.encode(x)[0])

    def _codes(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mean codes of the VAE that looks at x, and the one-hot class it is told."""
        if self.features_ is not None:
            return self.features_.encode(x)[0], None
        y = F.one_hot(self.classifier_(x).argmax(dim=1), len(self.classes_)).to(x.dtype)
        return self.vae_.encode(x, y)[0], y

    def _encode_blocks(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = self._in_blocks(X, lambda x: torch.cat(self.features_.encode(x), dim=1))
        return both[:, : self.latent_dim], both[:, self.latent_dim :]

    def _flat(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "classifier_")
        X = check_features("X", X, like=self.input_shape_)
        return X.reshape(len(X), -1)

    @torch.no_grad()
    def _in_blocks(self, X: np.ndarray, apply: Callable[[Tensor], Tensor]) -> np.ndarray:
        blocks = [X[start : start + 1024] for start in range(0, len(X), 1024)]
        done = [to_array(apply(to_tensor(block, self._device, self.dtype))) for block in blocks]
        return np.concatenate(done)

    def _check_parameters(self) -> None:
        check_choice("model", self.model, ["m1", "m2", "m1m2"])
        check_training(self)
        check_widths("hidden", self.hidden)
        if self.decoder is not None:
            check_choice("decoder", self.decoder, ["bernoulli", "gaussian"])
        low, high = check_pair("noise_bounds", self.noise_bounds)
        check_number("noise_bounds[0]", low, low=0, low_open=True)
        check_number("noise_bounds[1]", high, low=low, low_open=True)
        check_number("classifier_weight", self.classifier_weight, low=0)
        check_number("kl_weight", self.kl_weight, low=0)
        check_number("kl_warmup", self.kl_warmup, low=0, high=1)
        check_number("feature_steps", self.feature_steps, low=1, integer=True)

    def _modules(self) -> dict[str, nn.Module]:
        every = {"features": self.features_, "vae": self.vae_, "classifier": self.classifier_}
        return {name: module for name, module in every.items() if module is not None}

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        arrays = {"pseudo_labels_": self.pseudo_labels_, "confidence_": self.confidence_}
        for name, module in self._modules().items():
            arrays |= {f"{name}.{k}": v for k, v in networks.to_numpy(module).items()}
        return arrays

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.pseudo_labels_, self.confidence_ = arrays["pseudo_labels_"], arrays["confidence_"]
        self._build(np.random.default_rng(0), "cpu")
        for name, module in self._modules().items():
            networks.from_numpy(module, part_of(arrays, name))


def _inside(folders: Mapping[str, Any], stage: str) -> dict[str, Any]:
    return {name: None if f is None else Path(f) / stage for name, f in folders.items()}
