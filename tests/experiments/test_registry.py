"""The registry: settings check themselves, and the hash counts what changes a result."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy
from toy import TOY

from fewshot_course.data import DATASETS
from fewshot_course.experiments import EXPERIMENTS
from fewshot_course.experiments.kl_adaptation import draw

ALL = [*EXPERIMENTS.values(), TOY]


@pytest.mark.parametrize("experiment", ALL, ids=lambda e: e.name)
def test_every_experiment_is_told_whole(experiment):
    assert set(experiment.presets) == {"quick", "full"}
    assert set(experiment.default_methods) <= set(experiment.methods)
    module, _, name = experiment.run.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    for preset in experiment.presets:
        json.dumps(
            experiment.cell(
                next(iter(experiment.methods)), experiment.frameworks[0], 0, preset
            ).settings
        )
    for f in dataclasses.fields(experiment.config):
        assert f.metadata["help"]
        assert set(f.metadata["methods"] or ()) <= set(experiment.methods)


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda e: e.name)
def test_the_data_exist(experiment):
    assert set(experiment.data) <= set(DATASETS)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shotts": 1}, ValueError, "setting='shotts' is not known.*Did you mean 'shots'"),
        ({"shots": 0}, ValueError, r"shots must lie in \[1, 1000\], got 0"),
        ({"shots": 2.5}, TypeError, "shots must be a whole number, got 2.5"),
        ({"shots": True}, TypeError, "shots must be a whole number"),
        ({"rate": "half"}, TypeError, "rate must be a number, got 'half'"),
        ({"rate": None}, TypeError, "rate must be a number"),
        ({"data": "coins"}, ValueError, "data='coins'.*Did you mean 'coin'"),
        ({"data": 3}, TypeError, "data must be of type str, got 3"),
        ({"table": "no/such/file.csv"}, ValueError, "table='no/such/file.csv' is not known"),
    ],
)
def test_bad_settings_are_named(change, error, message):
    with pytest.raises(error, match=message):
        TOY.configure(**change)


def test_bad_cells_are_named():
    with pytest.raises(ValueError, match=r"method='plane'.*Did you mean 'plain'"):
        TOY.cell("plane", "numpy", 0)
    with pytest.raises(ValueError, match=r"framework='nunpy'.*Did you mean 'numpy'"):
        TOY.cell("plain", "nunpy", 0)
    with pytest.raises(ValueError, match=r"preset='fill'.*Did you mean 'full'"):
        TOY.cell("plain", "numpy", 0, "fill")
    with pytest.raises(ValueError, match="seed"):
        TOY.cell("plain", "numpy", -1)


def test_tf_is_tensorflow():
    kl = EXPERIMENTS["kl-adaptation"]
    assert kl.cell("kl", "tf", 0).framework == "tensorflow"
    assert kl.cell("kl", "tf", 0).key == kl.cell("kl", "tensorflow", 0).key


def hash_of(method="trick", framework="numpy", seed=0, preset="quick", **changes):
    cell = TOY.cell(method, framework, seed, preset, TOY.configure(preset, **changes))
    return cell.config_hash


def test_the_hash_counts_what_changes_a_result():
    hashes = [
        hash_of(),
        hash_of(method="plain"),
        hash_of(framework="scipy"),
        hash_of(shots=6),
        hash_of(data="die"),
        hash_of(rate=0.25),
        hash_of(preset="full"),
    ]
    assert len(set(hashes)) == len(hashes)


def test_a_new_version_of_the_code_is_another_configuration():
    old = TOY.cell("plain", "numpy", 0)
    new = dataclasses.replace(TOY, version=2).cell("plain", "numpy", 0)
    assert new.config_hash != old.config_hash


def test_the_hash_counts_nothing_else():
    assert hash_of(seed=3) == hash_of()
    assert hash_of(preset="full", shots=5) == hash_of()
    assert hash_of(rate=1) == hash_of(rate=1.0) == hash_of(rate="1e0")
    assert hash_of("plain", rate=0.25) == hash_of("plain")  # only the trick has a rate
    assert "rate" not in TOY.cell("plain", "numpy", 0).settings


def test_the_default_of_an_added_setting_is_what_stored_runs_had():
    experiment = EXPERIMENTS["kl-adaptation"]
    cell = experiment.cell("kl", "torch", 0)
    config = experiment.configure(precision="bfloat16")
    other = experiment.cell("kl", "torch", 0, config=config)
    assert "precision" not in cell.settings
    assert other.settings == {**cell.settings, "precision": "bfloat16"}
    assert other.config_hash != cell.config_hash


def test_the_hash_is_the_same_in_every_process():
    """Stored results must be found again: a changed hash orphans every file in results/."""
    code = "from toy import TOY; print(TOY.cell('trick', 'numpy', 0).config_hash)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{Path(toy.__file__).parent}:{Path(__file__).parents[2]}"},
    )
    assert out.stdout.strip() == hash_of()


def test_the_content_of_a_file_counts(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("a")
    first = hash_of(table=str(table))
    table.write_text("b")
    assert hash_of(table=str(table)) != first
    table.write_text("a")
    assert hash_of(table=str(table)) == first


def test_importing_the_registry_loads_no_framework():
    code = (
        "import sys, fewshot_course.experiments, fewshot_course.cli\n"
        "slow = {'torch', 'tensorflow', 'keras', 'sklearn', 'joblib', 'dask'}\n"
        "print(slow & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert out.stdout.strip() == "set()"


def test_a_draw_of_the_adaptation_keeps_test_images_apart():
    kl = EXPERIMENTS["kl-adaptation"]
    config = kl.configure(n_source=100, n_test=200, shots_target=2)
    first, again, other = draw(config, 0), draw(config, 0), draw(config, 1)
    for name in vars(first):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.y_test, other.y_test)
    assert first.X_source.shape == (100, 8, 8)
    assert len(first.X_test) == 200
    assert np.bincount(first.y_target + 1).tolist() == [config.n_target] + [2] * 10
    seen = {image.tobytes() for image in first.X_target}
    assert sum(image.tobytes() in seen for image in first.X_test) == 0
    unlabelled = draw(kl.configure(n_source=100, n_test=200), 0)
    assert set(unlabelled.y_target) == {-1}
    np.testing.assert_array_equal(unlabelled.X_test, first.X_test)


def test_a_draw_larger_than_the_data_is_named():
    with pytest.raises(ValueError, match="n_source=6000, but mnist5k has 5000"):
        draw(EXPERIMENTS["kl-adaptation"].configure(n_source=6000), 0)
