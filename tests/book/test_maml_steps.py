"""The interactive figure of the meta-learning topic: its steps are the package's."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from building import ROOT
from figures import layers, stored

pytestmark = pytest.mark.browser

TOPIC = "chapters/maml/index.html"
FIGURE = "maml-steps"
NAMES = ["MAML", "pretrained"]
GRID = np.linspace(-5, 5, 201)


def package_curves(name: str, task: dict[str, Any], steps: int, x: np.ndarray) -> np.ndarray:
    """The package's network after so many inner steps, in float64, at ``x``."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from torch.func import functional_call

    from fewshot_course.torch import maml, networks

    network = networks.MLP((1,), 1, (40, 40)).double()
    networks.from_numpy(network, layers(stored("maml-steps")["weights"][name]))

    def column(values: Any) -> Any:
        return torch.tensor(np.asarray(values), dtype=torch.float64)[:, None]

    def loss(parameters: Any) -> Any:
        output = functional_call(network, parameters, (column(task["x"]),))
        return (output - column(task["y"])).square().mean()

    start = dict(network.named_parameters())
    adapted = maml.adapt(loss, start, stored("maml-steps")["inner_lr"], steps, first_order=True)
    return functional_call(network, adapted, (column(x),)).detach().numpy()[:, 0]


def shown_errors(figure: Any) -> dict[str, list[float]]:
    cells = {name: figure.locator(f'tr[data-name="{name}"] td') for name in NAMES}
    return {name: [float(text) for text in cells[name].all_inner_texts()] for name in NAMES}


@pytest.mark.parametrize("number", range(6))
def test_the_curves_are_those_of_the_package_after_every_number_of_steps(
    figure: Any, number: int
) -> None:
    task = stored("maml-steps")["tasks"][number]
    figure.locator("select").select_option(index=number)
    for steps in range(11):
        figure.locator('input[name="steps"]').fill(str(steps))
        errors = shown_errors(figure)
        for name in NAMES:
            curve = figure.evaluate("(f, [name, x]) => f.predict(name, x)", [name, GRID.tolist()])
            expected = package_curves(name, task, steps, GRID)
            np.testing.assert_allclose(curve, expected, atol=1e-5)
            on_support = package_curves(name, task, steps, np.array(task["x"])) - task["y"]
            truth = task["amplitude"] * np.sin(GRID - task["phase"])
            wanted = [np.mean(on_support**2), np.mean((expected - truth) ** 2)]
            assert errors[name] == pytest.approx(wanted, abs=0.0051)


def test_ten_steps_lower_the_error_on_the_support_points_of_every_task(figure: Any) -> None:
    """The page says so."""
    for number in range(6):
        figure.locator("select").select_option(index=number)
        found = []
        for steps in (0, 10):
            figure.locator('input[name="steps"]').fill(str(steps))
            found.append(shown_errors(figure))
        assert all(found[1][name][0] < found[0][name][0] for name in NAMES)


def test_arrow_keys_and_typing_set_the_steps_and_the_text_says_so(figure: Any) -> None:
    slider, typed = figure.locator('input[name="steps"]'), figure.locator('input[name="typed"]')
    slider.focus()
    slider.press("ArrowRight")
    assert (slider.input_value(), typed.input_value()) == ("2", "2")
    typed.fill("10")
    assert slider.input_value() == "10"
    label = figure.locator("svg.fig-picture").get_attribute("aria-label")
    for text in (figure.locator(".fig-result").inner_text(), label):
        assert "After 10 inner steps" in text
        assert f"{shown_errors(figure)['MAML'][1]:.2f} for MAML" in text
    typed.fill("99")
    assert slider.input_value() == "10"
    typed.fill("")
    typed.blur()
    assert typed.input_value() == "10"


def test_it_starts_with_the_task_of_the_still_figure(figure: Any) -> None:
    notebook = (ROOT / "chapters" / "maml" / "torch.md").read_text(encoding="utf-8")
    cell = notebook.partition(":label: sinusoid-figure")[2].partition("```")[0]
    assert figure.locator("select").input_value() == re.findall(r"task\((\d)\)", cell)[0]
