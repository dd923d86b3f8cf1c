"""Experiment ``adaptation-choices``: how settings of ``kl-adaptation`` are chosen, and could be.

``part="validation"`` scores a cell on the target images that no test part of the scored draws
(seeds 0 to 9) holds: the settings of the topic were chosen on these.  ``part="test"`` scores the
usual test part, and adds what can be seen *without* target labels: how well that would have chosen
is the question, and nothing is chosen there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from fewshot_course.data import load_dataset
from fewshot_course.experiments import kl_adaptation
from fewshot_course.experiments.kl_adaptation import Draw, KLAdaptationConfig
from fewshot_course.experiments.registry import Cell, Experiment, RunOptions, setting

SCORED = 10
"""The draws of the stored tables are the seeds below this one."""


@dataclass(frozen=True)
class ChoicesConfig(KLAdaptationConfig):
    """Settings of ``kl-adaptation``, and what is scored."""

    part: str = setting("test", "images that are scored", choices=("validation", "test"))


EXPERIMENT = Experiment(
    name="adaptation-choices",
    title="Choose the settings of an adaptation: on validation images, or without target labels",
    config=ChoicesConfig,
    presets={"quick": {}, "full": {"steps": 2400}},
    methods={name: text for name, text in kl_adaptation.METHODS.items() if name != "target-only"},
    default_methods=("source-only", "kl"),
    data=("mnist5k", "uci_digits", "printed_digits"),
    run="fewshot_course.experiments.adaptation_choices:run",
)


@cache
def reserve(data: str, n_test: int) -> np.ndarray:
    """Return the target images that no test part of the scored draws holds, ascending."""
    config = KLAdaptationConfig(data=data, n_test=n_test, n_source=10)
    free = np.ones(len(load_dataset(data.split("->")[1]).y), bool)
    for seed in range(SCORED):
        free[kl_adaptation.draw(config, seed).test] = False
    return np.flatnonzero(free)


def run(cell: Cell, options: RunOptions) -> dict[str, Any]:
    """Train on one draw, score the part, and on "test" add what needs no target labels."""
    from fewshot_course.evaluation import selection  # scikit-learn is slow to import

    config: ChoicesConfig = cell.config
    _check(cell)
    data = kl_adaptation.draw(config, cell.seed)
    source = (data.X_source, data.y_source)
    if cell.method in kl_adaptation.AUGMENTED:
        source = kl_adaptation.augmented(config, cell.seed)
    if config.part == "validation":
        data = _on_reserve(data, config, cell.seed)

    fitted: dict[tuple[bytes, bytes], Any] = {}

    def make() -> Any:
        """Return an adapter; the two validations begin with the same fit, which is done once."""
        adapter = kl_adaptation.make_adapter(cell)
        fit = adapter.fit

        def fit_once(X: np.ndarray, y: np.ndarray, X_target: np.ndarray) -> Any:
            key = X.tobytes(), y.tobytes()
            if key not in fitted:
                fitted[key] = fit(X, y, X_target, device=options.device)
            return fitted[key]

        adapter.fit = fit_once
        return adapter

    adapter = make().fit(*source, data.X_target)
    right = adapter.predict(data.X_test) == data.y_test
    answers = np.full(data.n_items, np.nan)
    answers[data.test] = right
    found = {"accuracy": float(right.mean()), "n_test": len(right), "answers": answers}
    if config.part == "validation":
        return found
    proba = adapter.predict_proba(data.X_target)
    return (
        found
        | {
            name: score(make, *source, data.X_target, np.random.default_rng(cell.seed))
            for name, score in (
                ("source_validation", selection.source_validation_score),
                ("reverse_validation", selection.reverse_validation_score),
            )
        }
        | {
            "entropy": selection.mean_entropy(proba),
            "mutual_information": selection.mutual_information(proba),
            "neighbourhood_density": selection.soft_neighbourhood_density(proba),
        }
    )


def _check(cell: Cell) -> None:
    """Raise where a cell would choose on the draws of the tables, or cannot be scored."""
    config: ChoicesConfig = cell.config
    if not config.data.endswith("->uci_digits") or config.shots_target:
        raise ValueError(
            f"adaptation-choices takes an unlabelled target of uci_digits, got "
            f"data={config.data!r} and shots_target={config.shots_target}."
        )
    if (cell.seed < SCORED) == (config.part == "validation"):
        allowed = f"of {SCORED} or more" if config.part == "validation" else f"below {SCORED}"
        raise ValueError(
            f"part={config.part!r} takes a seed {allowed}, got {cell.seed}: nothing is chosen on "
            f"the draws of the tables."
        )
    if config.part == "test" and cell.method in kl_adaptation.AUGMENTED:
        raise ValueError(
            f"part='test' holds source images out, and copies of them would stay with "
            f"method={cell.method!r}; take another method."
        )


def _on_reserve(data: Draw, config: ChoicesConfig, seed: int) -> Draw:
    """Return a draw that is scored on the reserve and adapts to other target images."""
    target = load_dataset("uci_digits")
    test = reserve(config.data, config.n_test)
    rest = np.setdiff1d(np.arange(len(target.y)), test)
    chosen = np.random.default_rng([seed, 2]).permutation(rest)[: config.n_target]
    return replace(
        data,
        X_target=target.X[chosen],
        X_test=target.X[test],
        y_test=target.y[test],
        test=test,
    )
