"""The interactive figure of EM: its mixtures are the package's, and scikit-learn's."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from figures import stored

pytestmark = pytest.mark.browser

TOPIC = "chapters/pseudo_labels/gmm/index.html"
FIGURE = "em-steps"
STEPS = 30
CHOICES = [(full, clamp) for full in (True, False) for clamp in (False, True)]


def choose(figure: Any, full: bool, clamp: bool) -> list[dict[str, Any]]:
    """Set the figure's two choices and return its mixtures after 0, 1, … steps."""
    figure.locator("select").select_option("full" if full else "diag")
    figure.locator('input[name="clamp"]').set_checked(clamp)
    return figure.evaluate("figure => figure.path")


def square(covariances: Any) -> np.ndarray:
    """Matrices ``(K, 2, 2)`` from the figure's rows xx, xy, yy."""
    return np.array([[[xx, xy], [xy, yy]] for xx, xy, yy in covariances])


def package_path(full: bool, clamp: bool) -> list[tuple[Any, float]]:
    """The package's mixtures from the same start, each with its mean log-likelihood."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fewshot_course.torch import gmm

    data, kind = stored("em-steps"), "full" if full else "diag"
    start, labels = data["start"], np.array(data["labels"])
    covariances = square(start["covariances"])
    if not full:
        covariances = np.diagonal(covariances, axis1=1, axis2=2).copy()
    arrays = (start["weights"], start["means"], covariances)
    mixture = gmm.Mixture(*(torch.tensor(np.array(array)) for array in arrays))
    mask = np.zeros((len(labels), 3))
    if clamp:
        forbidden = (labels[:, None] >= 0) & (labels[:, None] != np.arange(3))
        mask[forbidden] = -np.inf
    path = []
    for _ in range(STEPS + 1):
        log_likelihood, following = gmm.em_step(
            torch.tensor(np.array(data["points"])), mixture, kind, mask=torch.tensor(mask)
        )
        path.append((mixture, float(log_likelihood)))
        mixture = following
    return path


@pytest.mark.parametrize(("full", "clamp"), CHOICES)
def test_every_step_is_the_packages(figure: Any, full: bool, clamp: bool) -> None:
    shown = choose(figure, full, clamp)
    assert len(shown) == STEPS + 1
    for state, (mixture, log_likelihood) in zip(shown, package_path(full, clamp), strict=True):
        covariances = square(state["covariances"])
        if not full:
            assert not covariances[:, 0, 1].any()
            covariances = np.diagonal(covariances, axis1=1, axis2=2)
        np.testing.assert_allclose(state["weights"], mixture.weights, atol=1e-8)
        np.testing.assert_allclose(state["means"], mixture.means, atol=1e-8)
        np.testing.assert_allclose(covariances, mixture.covariances, atol=1e-8)
        assert state["logLikelihood"] == pytest.approx(log_likelihood, abs=1e-8)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("steps", [1, 10, 30])
def test_without_labels_it_is_scikit_learns_mixture(figure: Any, full: bool, steps: int) -> None:
    from sklearn.mixture import GaussianMixture

    data = stored("em-steps")
    start = data["start"]
    precisions = np.linalg.inv(square(start["covariances"]))
    model = GaussianMixture(
        3,
        covariance_type="full" if full else "diag",
        tol=0,
        reg_covar=0,
        max_iter=steps,
        weights_init=start["weights"],
        means_init=start["means"],
        precisions_init=precisions if full else np.diagonal(precisions, axis1=1, axis2=2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns that so few steps do not converge
        model.fit(data["points"])
    state = choose(figure, full, False)[steps]
    covariances = square(state["covariances"])
    found = covariances if full else np.diagonal(covariances, axis1=1, axis2=2)
    np.testing.assert_allclose(state["weights"], model.weights_, atol=1e-8)
    np.testing.assert_allclose(state["means"], model.means_, atol=1e-8)
    np.testing.assert_allclose(found, model.covariances_, atol=1e-8)
    assert state["logLikelihood"] == pytest.approx(model.score(data["points"]), abs=1e-8)


@pytest.mark.parametrize(("full", "clamp"), CHOICES)
def test_the_log_likelihood_never_falls_and_no_component_shrinks_to_a_point(
    figure: Any, full: bool, clamp: bool
) -> None:
    shown = choose(figure, full, clamp)
    assert (np.diff([state["logLikelihood"] for state in shown]) >= -1e-12).all()
    assert min(np.linalg.eigvalsh(square(s["covariances"])).min() for s in shown) > 0.01


def test_a_clamped_point_belongs_to_its_class_and_the_letters_follow(figure: Any) -> None:
    """What the page says: the same clusters with and without labels, but other letters."""
    labels = np.array(stored("em-steps")["labels"])
    known, classes = labels >= 0, np.repeat(np.arange(3), 20)
    components = {}
    for clamp in (False, True):
        row = np.array(choose(figure, True, clamp)[-1]["responsibilities"])
        components[clamp] = row.argmax(1)
        assert (row[known, labels[known]] == 1).all() == clamp
    assert (components[True] == classes).mean() > 0.95
    assert (components[False] == classes).mean() < 0.5
    for k in range(3):  # each cluster still has one component
        assert len(set(components[False][components[True] == k])) == 1


def step_and_value(figure: Any) -> tuple[int, float]:
    number = int(figure.locator('input[name="step"]').input_value())
    text = figure.locator(".fig-result").inner_text().replace("−", "-")
    assert text.startswith(f"Step {number}:" if number else "Start:")
    return number, float(re.findall(r"log-likelihood is (\S+?)[,.]? ?(?:\s|$)", text)[0])


def test_buttons_and_keys_step_and_the_text_says_so(figure: Any) -> None:
    path = figure.evaluate("figure => figure.path.map(state => state.logLikelihood)")
    button = {name: figure.locator(f'button[name="{name}"]') for name in ("start", "back")}
    forward, slider = figure.locator('button[name="forward"]'), figure.locator('[name="step"]')
    actions = [
        (0, lambda: button["back"].click()),
        (1, lambda: forward.click()),
        (2, lambda: forward.press("ArrowRight")),
        (1, lambda: forward.press("ArrowLeft")),
        (2, lambda: forward.press("Enter")),
        (3, lambda: slider.press("ArrowRight")),
        (2, lambda: button["back"].click()),
        (30, lambda: slider.press("End")),
        (30, lambda: forward.click()),
        (0, lambda: button["start"].click()),
    ]
    for expected, act in actions:
        act()
        number, value = step_and_value(figure)
        assert number == expected
        assert value == pytest.approx(path[number], abs=6e-6)
        pictures = figure.locator("svg[role=img]").all()
        assert all(figure.locator(".fig-result").inner_text() in p.get_attribute("aria-label")
                   for p in pictures)  # fmt: skip
        printed = figure.locator(".fig-list li").all_text_contents()
        assert [float(text.replace("−", "-")) for text in printed] == pytest.approx(
            path[: number + 1], abs=6e-6
        )


def test_each_component_has_a_shape_of_its_own(figure: Any) -> None:
    """Colour does not stand alone."""
    figure.locator('input[name="step"]').fill("25")
    shapes: dict[str, set[str]] = {}
    for point in figure.locator("svg.fig-picture").first.locator(".fig-point").all():
        shapes.setdefault(point.get_attribute("class"), set()).add(point.get_attribute("d"))
    assert len(shapes) == 3
    assert len(set.union(*shapes.values())) == 3
