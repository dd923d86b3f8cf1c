"""Networks in PyTorch: a body that makes features and a linear head.

Images are channels last at the border.  Every layer has a right second derivative under every
transform of :mod:`torch.func`, so that MAML can differentiate through it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_course._arguments import COUNT, checked
from fewshot_course._checks import check_choice
from fewshot_course.weights import check_layout, initial_weights

__all__ = [
    "MLP",
    "BatchNorm",
    "Conv4",
    "Conv4Strided",
    "LayerNorm",
    "build",
    "from_numpy",
    "initialise",
    "to_numpy",
]


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the channels (Ioffe & Szegedy 2015).

    Written out instead of ``nn.BatchNorm``: ``grad(vmap(grad(...)))`` through ``F.batch_norm``
    gives a wrong second derivative.  ε is 1e-5; running averages move by a tenth of the way, the
    variance by its unbiased estimate.  Inside a transform of :mod:`torch.func`, which allows no
    side effect, they stay.  Outside of one, arrays of more than ``fused_above`` numbers and those
    in half precision take ``F.batch_norm``: the same up to rounding.

    Args:
        n_channels: size of axis 1.
    """

    eps = 1e-5
    momentum = 0.1
    # From here on no cache holds an array, and the dozen passes over it cost more than all the
    # convolutions; the fused kernel makes three.
    fused_above = 2**23

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(n_channels))
        self.register_buffer("running_var", torch.ones(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape ``(n, c)`` or ``(n, c, h, w)``."""
        if self._is_fused(x) and not _is_transformed(x):
            return self._fused(x)
        x = x.to(self.weight.dtype)  # statistics of low-precision inputs need all the digits
        # The operations of the TensorFlow twin, in its order.  F.batch_norm takes less time, but
        # rounds differently: where a gradient is zero but for rounding, Adam makes a whole step
        # of it (measured: 3e-3 in loss after ten float32 steps).
        shape = (1, -1) + (1,) * (x.ndim - 2)
        if self.training:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            mean = x.mean(axes)
            var = (x - mean.view(shape)).square().mean(axes)
            self._update_running(mean.detach(), var.detach(), x.numel() // x.shape[1])
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (x - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)

    def _is_fused(self, x: Tensor) -> bool:
        """Whether the kernel is worth its rounding; it sums half precision in float32."""
        return x.dtype in (torch.bfloat16, torch.float16) or x.numel() > self.fused_above

    def _fused(self, x: Tensor) -> Tensor:
        # The kernel keeps the averages it is given for the way back, so it gets copies: a second
        # pass of the same step moves the averages, whichever way it takes.
        mean, var = self.running_mean.clone(), self.running_var.clone()
        out = F.batch_norm(
            x, mean, var, self.weight, self.bias,
            training=self.training, momentum=self.momentum, eps=self.eps,
        )  # fmt: skip
        if self.training:
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
        return out

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, n: int) -> None:
        if _is_transformed(mean):
            return
        unbiased = var * (n / max(n - 1, 1))
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


def _is_transformed(x: Tensor) -> bool:
    """Whether ``x`` lives inside a transform of :mod:`torch.func`."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016).

    Args:
        n_features: size of the last axis.
        eps: added to the variance.
    """

    def __init__(self, n_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(n_features))
        self.bias = nn.Parameter(torch.zeros(n_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape ``(..., n_features)``."""
        centred = x - x.mean(-1, keepdim=True)
        var = centred.square().mean(-1, keepdim=True)
        return centred * torch.rsqrt(var + self.eps) * self.weight + self.bias


class MLP(nn.Module):
    """Fully connected network: flatten, ``hidden`` layers with ReLU, a linear head.

    Args:
        input_shape: shape of one example; it is flattened.
        n_outputs: width of the head.
        hidden: widths of the hidden layers; ``body`` holds them.
    """

    def __init__(
        self, input_shape: Sequence[int], n_outputs: int, hidden: Sequence[int] = (256,)
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], n_outputs)

    def features(self, x: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to the last hidden layer, ``(n, hidden[-1])``."""
        return self.body(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, *input_shape)`` to ``(n, n_outputs)``."""
        return self.head(self.features(x))


class Conv4(nn.Module):
    """Four blocks of 3×3 convolution, batch norm, ReLU and 2×2 pooling, then a linear head.

    The network of the few-shot literature (Vinyals et al. 2016).  A block whose input is only
    one pixel high or wide leaves its pooling out, so that 8×8 images pass too.  The largest of
    four is taken before the ReLU and not after it: the same numbers, for a quarter of the work.

    Args:
        input_shape: ``(h, w)`` or ``(h, w, c)`` of one image.
        n_outputs: width of the head.
        channels: width of every block.
    """

    def __init__(self, input_shape: Sequence[int], n_outputs: int, channels: int = 64) -> None:
        super().__init__()
        height, width, depth = (*input_shape, 1)[:3]
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(depth, channels, 3, padding=1, bias=False), BatchNorm(channels)]
            if min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            layers.append(nn.ReLU())
            depth = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels * height * width, n_outputs)

    def features(self, x: Tensor) -> Tensor:
        """Map images ``(n, h, w[, c])`` to flat features, flattened channels last."""
        x = x.unsqueeze(-1) if x.ndim == 3 else x
        return self.body(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, h, w[, c])`` to ``(n, n_outputs)``."""
        return self.head(self.features(x))


class Conv4Strided(nn.Module):
    """Four blocks of 3×3 convolution with stride 2, batch norm and ReLU, then a linear head.

    The network with which MAML's authors learned Omniglot (Finn et al. 2017, section 5.2): the
    stride halves height and width instead of a pooling, so that a block costs a quarter.  The head
    sees the mean over the positions.  Images are padded by one pixel on each side.

    Args:
        input_shape: ``(h, w)`` or ``(h, w, c)`` of one image.
        n_outputs: width of the head.
        channels: width of every block.
    """

    def __init__(self, input_shape: Sequence[int], n_outputs: int, channels: int = 64) -> None:
        super().__init__()
        depth = (*input_shape, 1)[2]
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [
                nn.Conv2d(depth, channels, 3, stride=2, padding=1, bias=False),
                BatchNorm(channels),
                nn.ReLU(),
            ]
            depth = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, n_outputs)

    def features(self, x: Tensor) -> Tensor:
        """Map images ``(n, h, w[, c])`` to features ``(n, channels)``."""
        x = x.unsqueeze(-1) if x.ndim == 3 else x
        return self.body(x.permute(0, 3, 1, 2)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, h, w[, c])`` to ``(n, n_outputs)``."""
        return self.head(self.features(x))


NETWORKS: dict[str, Callable[[Sequence[int], int], nn.Module]] = {
    "mlp": MLP,
    "conv4": Conv4,
    "conv4-strided": Conv4Strided,
}


@checked(n_outputs=COUNT)
def build(
    network: str | Callable[[], nn.Module] | None,
    input_shape: Sequence[int],
    n_outputs: int,
    rng: np.random.Generator,
    dtype: str = "float32",
) -> nn.Module:
    """Make a network by name, or by the user's own factory.

    Args:
        network: "mlp", "conv4", "conv4-strided", a zero-argument factory, or ``None``: conv4 for
            images, mlp for vectors.  Named networks are drawn from ``rng``; a factory keeps its own
            weights.
        input_shape: shape of one example.
        n_outputs: what the network must return for each example.
        rng: the ``init`` stream.
        dtype: "float32" or "float64".

    Returns:
        A module that maps ``(n, *input_shape)`` to ``(n, n_outputs)``.

    Raises:
        ValueError: for an unknown name, a conv4 on vectors, or a factory whose module does not
            take such examples or returns another shape.
        TypeError: for a module instead of a factory, or a factory that makes no module.
    """
    check_choice("dtype", dtype, ["float32", "float64"])
    if callable(network) and not isinstance(network, nn.Module):
        module = _call_factory(network).to(getattr(torch, dtype))
        _check_output(module, input_shape, n_outputs, dtype)
        return module
    if isinstance(network, nn.Module):
        raise TypeError(_NO_FACTORY.format(what=f"the module {type(network).__name__}"))
    name = check_choice("network", network or _default_name(input_shape), NETWORKS)
    if name != "mlp" and len(input_shape) < 2:
        raise ValueError(f"network={name!r} needs images, got examples of shape {input_shape}.")
    module = NETWORKS[name](input_shape, n_outputs).to(getattr(torch, dtype))
    return initialise(module, rng)


@checked
def initialise(module: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Draw the weights of ``module`` anew from ``rng``, in canonical layout; returns it."""
    shapes = {name: array.shape for name, array in to_numpy(module).items()}
    from_numpy(module, initial_weights(shapes, rng, dtype="float64"))
    return module


@checked
def to_numpy(module: nn.Module) -> dict[str, np.ndarray]:
    """Return the weights in canonical layout: name → array (a copy, on the CPU)."""
    return {name: value.detach().cpu().numpy().copy() for name, value in _state(module).items()}


@checked
def from_numpy(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Load weights in canonical layout; a wrong name or shape raises ``ValueError``."""
    state = _state(module)
    check_layout(arrays, {name: tuple(value.shape) for name, value in state.items()})
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(torch.as_tensor(np.asarray(arrays[name])))


@contextmanager
def mixed_precision(network: nn.Module, precision: str) -> Iterator[None]:
    """Make linear and convolutional layers compute in ``precision`` while the body runs.

    Their weights stay as they are; "float32" stands for the weights' own dtype.
    """
    if precision == "float32":
        yield
        return
    device = next(network.parameters()).device.type
    with torch.autocast(device, dtype=getattr(torch, precision)):
        yield


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in module.state_dict(keep_vars=True).items()
        if not name.endswith("num_batches_tracked")
    }


_NO_FACTORY = (
    "network must be a name or a function without arguments that makes a module, got {what}; "
    "write network=lambda: ..."
)


def _call_factory(network: Callable[[], nn.Module]) -> nn.Module:
    module = network()
    if not isinstance(module, nn.Module):
        made = type(module).__name__
        raise TypeError(_NO_FACTORY.format(what=f"a function that returned a {made}"))
    return module


def _default_name(input_shape: Sequence[int]) -> str:
    return "conv4" if len(input_shape) >= 2 else "mlp"


def _check_output(
    module: nn.Module, input_shape: Sequence[int], n_outputs: int, dtype: str
) -> None:
    was_training = module.training
    examples = torch.zeros(2, *input_shape, dtype=getattr(torch, dtype))
    try:
        with torch.no_grad():
            shape = tuple(module.eval()(examples).shape)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"the network factory's module cannot map examples of shape {tuple(input_shape)} to "
            f"{n_outputs} outputs: {error}"
        ) from error
    module.train(was_training)
    if shape != (2, n_outputs):
        raise ValueError(
            f"the network factory's module maps 2 examples to shape {shape}, "
            f"expected {(2, n_outputs)}."
        )
