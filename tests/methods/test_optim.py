"""Optimisers against torch.optim in float64, and the schedules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_course.both.optim import ReduceLROnPlateau, ramp, warmup_linear

torch = pytest.importorskip("torch", reason="the oracle is torch.optim")

SHAPES = [(3, 2), (3,), (2, 3, 1, 1), ()]
STEPS = 20


def gradients(seed=1):
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(size=s) * 10.0 ** rng.integers(-9, 3) for s in SHAPES] for _ in range(STEPS)
    ]


def start():
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in SHAPES]


def run_ours(framework, make, change=None, dtype="float64"):
    """Apply the given gradients; ``change`` is the learning rate from the tenth step on."""
    optim = framework.module("optim")
    if framework.name == "torch":
        parameters = [
            torch.nn.Parameter(torch.tensor(p, dtype=getattr(torch, dtype))) for p in start()
        ]
        optimizer = make(optim, parameters)
    else:
        import tensorflow as tf

        parameters = [tf.Variable(p, dtype=dtype) for p in start()]
        optimizer = make(optim, parameters)
    for number, step in enumerate(gradients()):
        if change is not None and number == 10:
            optim.set_learning_rate(optimizer, change)
        if framework.name == "torch":
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = torch.tensor(gradient, dtype=parameter.dtype)
            optimizer.step()
        else:
            optimizer.apply([tf.constant(g, dtype) for g in step])
    return [
        framework.array(tf.convert_to_tensor(p))
        if framework.name != "torch"
        else framework.array(p)
        for p in parameters
    ]


def run_torch(make, change=None):
    parameters = [torch.nn.Parameter(torch.tensor(p)) for p in start()]
    optimizer = make(parameters)
    for number, step in enumerate(gradients()):
        if change is not None and number == 10:
            for group in optimizer.param_groups:
                group["lr"] = change
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return [p.detach().numpy() for p in parameters]


def decayed_and_not(parameters, **settings):
    """torch's AdamW with the weight decay of the course: of weights only."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.3},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        **settings,
    )


CASES = {
    "sgd": (lambda o, p: o.sgd(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        lambda o, p: o.sgd(p, lr=0.1, momentum=0.9, weight_decay=0.2),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.2),
    ),
    "adam": (lambda o, p: o.adam(p, lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam, other settings": (
        lambda o, p: o.adam(p, lr=0.01, betas=(0.4, 0.6), eps=1e-3),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.4, 0.6), eps=1e-3),
    ),
    "adamw": (
        lambda o, p: o.adamw(p, lr=0.01, weight_decay=0.3),
        lambda p: decayed_and_not(p, lr=0.01),
    ),
}


@pytest.mark.parametrize("change", [None, 0.003], ids=["one rate", "rate changed"])
@pytest.mark.parametrize("case", CASES)
def test_equals_torch_optim(framework, case, change):
    ours, oracle = CASES[case]
    for a, b in zip(run_ours(framework, ours, change), run_torch(oracle, change), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [0, 1, 5, 7])
def test_buckets_change_nothing(both, monkeypatch, case, size):
    """However TensorFlow's small parameters are put together: alone, in pairs, or all but one."""
    ours, oracle = CASES[case]
    monkeypatch.setattr(both[1].module("optim"), "BUCKET", size)
    updated = run_ours(both[1], ours)
    for a, b in zip(updated, run_torch(oracle), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def test_buckets_hold_every_parameter_once_and_one_dtype(both, monkeypatch):
    import tensorflow as tf

    optim = both[1].module("optim")
    monkeypatch.setattr(optim, "BUCKET", 6)
    shapes = [((2, 2), "float32"), ((3,), "float64"), ((2,), "float32"), ((7,), "float32"),
              ((1,), "float32"), ((3,), "float64")]  # fmt: skip
    parameters = [tf.Variable(tf.ones(shape, dtype)) for shape, dtype in shapes]
    optimizer = optim.adam(parameters, lr=0.1)
    assert optimizer.buckets == [[0, 2], [1, 5], [3], [4]]
    optimizer.apply([tf.ones_like(p) for p in parameters])
    for parameter in parameters:  # the first step of Adam is the rate
        np.testing.assert_allclose(parameter.numpy(), 0.9, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_what_has_no_gradient_stays_as_it_is(framework, case):
    """Neither momentum nor decay moves it, and its neighbours do not notice."""
    ours, _ = CASES[case]
    optim, (first, _, last, _) = framework.module("optim"), start()
    gradient = np.full(first.shape, 0.3)
    ends = []
    for values in ((first, last, first), (first, first)):
        if framework.name == "torch":
            parameters = [torch.nn.Parameter(torch.tensor(v)) for v in values]
        else:
            import tensorflow as tf

            parameters = [tf.Variable(v) for v in values]
        optimizer = ours(optim, parameters)
        missing = 1 if len(values) == 3 else None
        gradients = [None if i == missing else gradient for i in range(len(values))]
        for _ in range(3):
            if framework.name == "torch":
                for parameter, g in zip(parameters, gradients, strict=True):
                    parameter.grad = None if g is None else torch.tensor(g)
                optimizer.step()
            else:
                optimizer.apply([None if g is None else tf.constant(g) for g in gradients])
        ends.append([framework.array(p) for p in parameters])
    (one, still, other), (alone, both_alone) = ends
    np.testing.assert_array_equal(still, last)
    for a, b in ((one, alone), (other, both_alone)):
        np.testing.assert_array_equal(a, b)


def test_adamw_leaves_biases_undecayed(framework):
    """Without a gradient's pull, only weights shrink."""
    optim = framework.module("optim")
    if framework.name == "torch":
        parameters = [torch.nn.Parameter(torch.ones(s).double()) for s in SHAPES]
        optimizer = optim.adamw(parameters, lr=0.1, weight_decay=0.5)
        for p in parameters:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        values = [p.detach().numpy() for p in parameters]
    else:
        import tensorflow as tf

        parameters = [tf.Variable(tf.ones(s, tf.float64)) for s in SHAPES]
        optim.adamw(parameters, lr=0.1, weight_decay=0.5).apply(
            [tf.zeros_like(p) for p in parameters]
        )
        values = [p.numpy() for p in parameters]
    for value in values:
        np.testing.assert_allclose(value, 0.95 if value.ndim > 1 else 1.0, rtol=1e-15)


def test_clip_gradients(framework):
    clip = framework.module("optim").clip_gradients
    g = [np.array([3.0, 0.0]), np.array([[4.0]])]
    clipped = [framework.array(x) for x in clip([framework.tensor(x) for x in g], 1.0)]
    joint = np.sqrt(sum((x**2).sum() for x in clipped))
    assert joint == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(clipped[0][0] / clipped[1][0, 0], 3 / 4)
    untouched = clip([framework.tensor(x) for x in g], 6.0)
    np.testing.assert_array_equal(framework.array(untouched[0]), g[0])
    small = clip([framework.tensor(x.astype("float32")) for x in g], 1.0)
    assert framework.array(small[0]).dtype == "float32"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda o, p: o.sgd(p, lr=0), "lr"),
        (lambda o, p: o.sgd(p, lr=-1.0), "lr"),
        (lambda o, p: o.sgd(p, momentum=1.0), "momentum"),
        (lambda o, p: o.sgd(p, weight_decay=-0.1), "weight_decay"),
        (lambda o, p: o.adam(p, betas=(0.9, 1.0)), r"betas\[1\]"),
        (lambda o, p: o.adam(p, eps=-1e-8), "eps"),
        (lambda o, p: o.adamw(p, weight_decay=float("nan")), "weight_decay"),
    ],
)
def test_bad_settings_are_named(framework, make, named):
    optim = framework.module("optim")
    with pytest.raises(ValueError, match=f"^{named} must"):
        make(optim, [])
    with pytest.raises(TypeError, match="betas must be a pair"):
        optim.adam([], betas=0.9)


# ---------------------------------------------------------------- schedules


@given(
    losses=st.lists(st.floats(-10, 10) | st.just(float("nan")), min_size=1, max_size=40),
    lr=st.sampled_from([1.0, 1e-3, 3e-8]),
    factor=st.sampled_from([0.1, 0.5]),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    min_lr=st.sampled_from([0.0, 1e-4]),
)
def test_reduce_on_plateau_equals_torchs(losses, lr, factor, patience, threshold, min_lr):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=lr)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=threshold, min_lr=min_lr
    )
    ours = ReduceLROnPlateau(lr, factor, patience, threshold, min_lr)
    for number, loss in enumerate(losses):
        oracle.step(loss)
        assert ours.step(loss) == optimizer.param_groups[0]["lr"], number
        if number == len(losses) // 2:  # a restored one goes on in the same way
            again = ReduceLROnPlateau(99.0, factor, patience, threshold, min_lr)
            again.restore(ours.state())
            ours = again


def test_bad_plateau_settings_are_named():
    for settings, named in (
        ({"lr": 0.0}, "lr"),
        ({"lr": 1.0, "factor": 0.0}, "factor"),
        ({"lr": 1.0, "factor": 1.0}, "factor"),
        ({"lr": 1.0, "patience": -1}, "patience"),
        ({"lr": 1.0, "threshold": -1.0}, "threshold"),
    ):
        with pytest.raises(ValueError, match=f"^{named} must lie"):
            ReduceLROnPlateau(**settings)


@given(steps=st.integers(1, 200), warmup=st.floats(0, 1))
def test_warmup_rises_then_falls(steps, warmup):
    factors = [warmup_linear(step, steps, warmup) for step in range(steps)]
    assert all(0 < f <= 1 for f in factors)
    rising = [f for step, f in enumerate(factors) if step < warmup * steps]
    falling = factors[len(rising) :]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


@given(steps=st.integers(1, 200), part=st.floats(0, 1))
def test_ramp_rises_and_stays(steps, part):
    factors = [ramp(step, steps, part) for step in range(steps)]
    assert factors == sorted(factors)
    assert all(0 <= f <= 1 for f in factors)
    assert all(f == 1 for step, f in enumerate(factors) if step >= part * steps)
    if part > 0:
        assert factors[0] == 0
