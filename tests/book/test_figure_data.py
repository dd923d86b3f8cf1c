"""The numbers that interactive figures load are those of the notebooks' own cells."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import figure_data
import numpy as np
import pytest
from building import ROOT
from figures import layers, stored
from notebook_cells import find_cell, printed_text

TOOL = ROOT / "book" / "_tools" / "figure_data.py"


def printed(notebook: str, label: str) -> str:
    return printed_text(find_cell(ROOT / "chapters" / notebook, label))


def sinusoid_errors(packed: str) -> list[float]:
    """Mean error over the notebook's test tasks after 0, 1, 5 and 10 steps of the package's."""
    pytest.importorskip("torch", reason="torch is not installed")
    from fewshot_course.data import SinusoidSampler
    from fewshot_course.torch import MAML, networks

    tasks = SinusoidSampler(n_support=5, n_query=10).sample(1, 500)
    learner = MAML(task="regression", iterations=1, n_tasks=1, inner_lr=0.01, random_state=0)
    learner.fit(SinusoidSampler(), device="cpu")
    networks.from_numpy(learner.network_, layers(packed))
    return [float(np.mean(learner.evaluate(tasks, steps=steps))) for steps in (0, 1, 5, 10)]


@pytest.mark.parametrize("name", ["MAML", "pretrained"])
def test_the_sinusoid_networks_have_the_errors_that_the_notebook_printed(name: str) -> None:
    pattern = rf"^{name}, \d+ steps: (\S+)"
    numbers = re.findall(pattern, printed("maml/torch.ipynb", "sinusoid-train"), re.MULTILINE)
    expected = [float(number) for number in numbers]
    # Printed with two decimals; another machine's notebook may be 2 % off (tol-loss).
    assert sinusoid_errors(stored("maml-steps")["weights"][name]) == pytest.approx(
        expected, rel=0.02, abs=0.005
    )


def test_the_sinusoid_tasks_are_the_first_test_tasks() -> None:
    from fewshot_course.data import SinusoidSampler

    tasks = SinusoidSampler(n_support=5, n_query=10).sample(1, 500)
    for number, task in enumerate(stored("maml-steps")["tasks"]):
        X_support, y_support, X_query, y_query = tasks.task(number)
        assert task["x"] == X_support[:, 0].tolist()
        assert task["y"] == y_support[:, 0].tolist()
        curve = task["amplitude"] * np.sin(X_query - task["phase"])
        np.testing.assert_allclose(curve, y_query, atol=1e-12)


@pytest.fixture(scope="module")
def made_again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all figures, from the notebooks' cells run anew."""
    pytest.importorskip("torch", reason="torch is not installed")
    out = tmp_path_factory.mktemp("figure_data")
    command = [sys.executable, str(TOOL), "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return out


def distance(a: str, b: str) -> float:
    """How far two networks' weights lie apart, as a share of their size."""
    first, second = figure_data.unpacked(a, "f4"), figure_data.unpacked(b, "f4")
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


def test_training_again_gives_the_stored_networks(made_again: Path) -> None:
    weights = stored("maml-steps")["weights"]
    new = figure_data.read(made_again / "maml-steps-data.js")["weights"]
    for name in weights:
        assert distance(weights[name], new[name]) < 0.02
    # The two are different networks, so the comparison can fail.
    assert distance(weights["MAML"], weights["pretrained"]) > 0.2


def test_an_unknown_figure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        figure_data.main(["no-such-figure"])
    assert "there are confidence-threshold, em-steps" in capsys.readouterr().err


def test_the_points_for_em_are_those_of_the_generator() -> None:
    assert stored("em-steps") == figure_data.em_steps(ROOT)


def kept_and_right(data: dict[str, str], threshold: float) -> tuple[float, float]:
    """Share of the pseudo-labels that a threshold keeps, and how many of these are right."""
    kept = figure_data.unpacked(data["confidence"], "f8") >= threshold
    right = np.array(list(data["right"])) == "1"
    return float(kept.mean()), float(right[kept].mean())


def test_the_confidences_give_the_shares_that_the_notebook_printed() -> None:
    text = printed("pseudo_labels/gmm/torch.ipynb", "confidence")
    lines = re.findall(r"confidence >= (\S+): coverage = (\S+), right = (\S+)", text)
    assert len(lines) == 6
    data = stored("confidence-threshold")["mixture"]
    for threshold, coverage, right in lines:
        found = kept_and_right(data, float(threshold))
        # Another machine's notebook may differ by 0.02 (tol-accuracy).
        assert found == pytest.approx((float(coverage), float(right)), abs=0.02)


def test_running_the_cells_again_gives_the_stored_confidences(made_again: Path) -> None:
    data, new = (
        figure_data.read(folder / "confidence-threshold-data.js")
        for folder in (figure_data.STATIC, made_again)
    )
    for name, thresholds in (("mixture", (0, 0.9, 0.999)), ("logistic regression", (0, 0.5, 0.7))):
        for threshold in thresholds:
            expected = kept_and_right(data[name], threshold)
            assert kept_and_right(new[name], threshold) == pytest.approx(expected, abs=0.02)
    # The models differ, so the comparison can fail.
    mixture, logistic = (kept_and_right(data[name], 0.7)[0] for name in data)
    assert mixture - logistic > 0.2
