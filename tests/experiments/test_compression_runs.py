"""The compression experiment through the runner, in both frameworks, on a tiny encoder."""

import numpy as np
import pytest
import tiny_bert
from frameworks import FRAMEWORKS
from stored_answers import assert_answers

from fewshot_course.experiments import EXPERIMENTS, read_results
from fewshot_course.experiments.compression import METHODS, draw, further_texts
from fewshot_course.experiments.runner import run_cell

EXPERIMENT = EXPERIMENTS["compression"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny"))


def cell(tiny, method, framework="torch", **changes):
    small = {"shots": 2, "n_test": 30, "n_timed": 5, "model": tiny, "layers": 1, "epochs": 1,
             "max_length": 12, "more": "reviews_films", "n_more": 20}  # fmt: skip
    config = EXPERIMENT.configure(**{**small, **changes})
    return EXPERIMENT.cell(method, framework, 0, config=config)


@pytest.mark.filterwarnings("ignore:.*texts? (is|are) longer")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs(tiny, method, framework):
    if "int8" in method and framework == "torch":
        pytest.importorskip("torchao", reason="torchao is not installed")
    result = run_cell(cell(tiny, method, framework))
    assert result.error is None
    assert_answers(result)
    assert result.n_test == 30
    found = result.metrics
    assert all(
        found[name] > 0 for name in ("megabytes", "seconds_a_text", "seconds_a_text_teacher")
    )
    if method == "teacher":
        assert found["agreement"] == found["kept"] == found["size_ratio"] == 1
        assert found["seconds_a_text"] == found["seconds_a_text_teacher"]
    else:
        assert found["size_ratio"] < 1
    assert ("sparsity" in result.config) is method.startswith("pruned")


def test_the_student_sees_all_texts_but_few_labels_and_no_test_text():
    config = EXPERIMENT.configure(shots=3)
    one, two = draw(config, 0), draw(config, 1)
    assert np.bincount(one.y[one.y >= 0]).tolist() == [3] * 15
    assert (one.y == -1).sum() == len(one.X) - 45
    assert one.X_test == two.X_test
    assert not set(one.X) & set(one.X_test)
    choosing = draw(EXPERIMENT.configure(shots=3, score_on="validation"), 0)
    assert not set(choosing.X_test) & (set(one.X_test) | set(choosing.X))


def test_further_texts_are_drawn_by_the_seed_from_another_data_set():
    config = EXPERIMENT.configure(more="reviews_films", n_more=30)
    one, two = further_texts(config, 0), further_texts(config, 1)
    assert len(set(one)) == 30
    assert one != two
    assert one == further_texts(config, 0)
    assert not set(one) & set(draw(config, 0).X_test)
    with pytest.raises(ValueError, match="n_more=100000, but reviews_films has"):
        further_texts(EXPERIMENT.configure(more="reviews_films", n_more=100_000), 0)


def test_more_shots_than_texts_are_refused():
    with pytest.raises(ValueError, match="shots"):
        draw(EXPERIMENT.configure(shots=60), 0)


def test_the_stored_runs_have_the_three_draws_of_each_method(request):
    file = request.config.rootpath / "results" / "compression.jsonl"
    found = [r for r in read_results(file) if r.framework == "torch" and r.config["shots"] == 8]
    for method in ("teacher", "student", "student-more", "pruned", "int8"):
        assert {r.seed for r in found if r.method == method} == {0, 1, 2}, method
    assert all(r.error is None for r in found)
