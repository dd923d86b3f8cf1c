"""The adaptation experiment through the runner, in both frameworks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from frameworks import FRAMEWORKS

from fewshot_course.data import where
from fewshot_course.experiments import EXPERIMENTS, kl_adaptation, read_results
from fewshot_course.experiments.registry import RunOptions
from fewshot_course.experiments.results import unpack_answers
from fewshot_course.experiments.runner import run_cell, run_cells

KL = EXPERIMENTS["kl-adaptation"]
SMALL = {"n_source": 200, "n_test": 100, "steps": 20, "batch_size": 32}
METHODS = ("source-only", "kl")
KILLS = int(os.environ.get("FEWSHOT_COURSE_KILLS", "2"))


def small_cells(framework, seeds=2, **changes):
    config = KL.configure(**{**SMALL, **changes})
    return [KL.cell(m, framework, s, config=config) for m in METHODS for s in range(seeds)]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_method_runs_and_repeats_itself(framework, tmp_path):
    first = run_cells(small_cells(framework))
    assert [r.error for r in first] == [None] * len(first)
    assert all(0 <= r.metrics["accuracy"] <= 1 and r.n_test == 100 for r in first)
    assert all(framework in r.versions for r in first)
    options = RunOptions(device="cpu", checkpoints=str(tmp_path))
    again = run_cells(small_cells(framework), options=options)
    assert [r.metrics for r in again] == [r.metrics for r in first]
    assert list(tmp_path.iterdir()) == []  # nothing is left of cells that are done


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_weight_zero_is_source_only(framework):
    config = KL.configure(**SMALL, weight=0.0, reverse_weight=0.0)
    source_only, kl = (run_cell(KL.cell(m, framework, 0, config=config)) for m in METHODS)
    assert kl.metrics == source_only.metrics


def test_the_frameworks_agree():
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    for a, b in zip(small_cells("torch"), small_cells("tensorflow"), strict=True):
        first, second = run_cell(a), run_cell(b)
        # One image of 100 is the rounding of a float32 run.
        assert abs(first.metrics["accuracy"] - second.metrics["accuracy"]) <= 0.011


SWEEP = """
import sys
from test_kl_adaptation import small_cells
from fewshot_course.experiments.runner import run_cells
run_cells(small_cells(sys.argv[1], seeds=KILLS), sys.argv[2])
print("done", flush=True)
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_real_sweep_killed_and_resumed(framework, tmp_path):
    """Set FEWSHOT_COURSE_KILLS=5 for more kills."""
    path = tmp_path / "r.jsonl"
    here = Path(__file__).parent
    for _ in range(KILLS):
        process = _start(framework, path, here)
        before = path.read_bytes() if path.exists() else b""
        for _ in range(1200):  # until the next result is there
            if path.exists() and len(path.read_bytes()) > len(before):
                break
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert path.read_bytes().startswith(before)
    process = _start(framework, path, here)
    assert process.communicate()[0] == "done\n"
    expected = run_cells(small_cells(framework, seeds=KILLS))
    found = {r.key: r.metrics for r in read_results(path)}
    assert found == {r.key: r.metrics for r in expected}
    assert len(path.read_text().splitlines()) == len(expected)


def _start(framework, path, here):
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP.replace("KILLS", str(KILLS)), framework, str(path)],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent / 'helpers'}:{here.parents[1]}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_partner_of_kliep_weights_all_alike(framework):
    config = KL.configure(**SMALL)
    data = kl_adaptation.draw(config, 0)
    fitted = {}
    for method in ("kliep", "unweighted"):
        model = kl_adaptation.make_adapter(KL.cell(method, framework, 0, config=config))
        fitted[method] = model.fit(data.X_source, data.y_source, data.X_target, device="cpu")
    np.testing.assert_allclose(fitted["unweighted"].weights_, 1, atol=1e-9)
    assert fitted["kliep"].weights_.std() > 0.1
    ours, theirs = (model.get_params() for model in fitted.values())
    assert {name for name in ours if ours[name] != theirs[name]} == {"width"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_batch_norm_of_the_target_needs_batch_norm(framework):
    config = KL.configure(**SMALL, network="conv4")
    adapted, source_only = (
        run_cell(KL.cell(m, framework, 0, config=config)) for m in ("adabn", "source-only")
    )
    assert adapted.error is None
    assert adapted.metrics["source_accuracy"] != source_only.metrics["source_accuracy"]
    with pytest.raises(ValueError, match="network='mlp' has no batch norm"):
        kl_adaptation.run(KL.cell("adabn", framework, 0), RunOptions(device="cpu"))


def test_answers_are_those_of_the_test_part():
    config = KL.configure(**SMALL)
    data = kl_adaptation.draw(config, 0)
    result = run_cell(KL.cell("source-only", "torch", 0, config=config))
    answers = unpack_answers(result.answers)
    assert len(answers) == data.n_items == 1797
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(answers)), np.sort(data.test))
    assert np.nanmean(answers) == result.metrics["accuracy"]


@pytest.mark.parametrize(("data", "n_test"), [("mnist->usps", 2007), ("usps->mnist", 10_000)])
def test_pairs_with_parts_of_their_own_are_scored_on_the_targets_test_part(data, n_test):
    if where("usps") is None or where("mnist") is None:
        pytest.skip("needs USPS and MNIST")
    config = KL.configure(data=data, n_source=300, n_target=200, n_test=n_test, image_size=16)
    one, other = kl_adaptation.draw(config, 0), kl_adaptation.draw(config, 1)
    assert one.X_source.shape == (300, 16, 16)
    assert one.X_target.shape == (200, 16, 16)
    assert (one.y_target == -1).all()
    assert len(one.y_test) == one.n_items == n_test
    np.testing.assert_array_equal(one.X_test, other.X_test)
    assert not np.array_equal(one.X_source, other.X_source)
