"""Adapters in the queue of the course's networks: trained, killed, stored, read again."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from frameworks import FRAMEWORKS

from fewshot_course.experiments import domains
from fewshot_course.experiments.networks import (
    DataMismatch,
    load_card,
    load_network,
    load_plans,
    repeat_first_steps,
    repeat_scores,
    train_networks,
)
from fewshot_course.weights import load_arrays

PLAN = """
- name: {name}
  method: {method}
  framework: torch
  data: {{data: mnist5k->uci_digits, draw: 3, image_size: 8,
         n_source: 300, n_target: 200, n_test: 150}}
  seed: 3
  budget: {budget}
  validation: {{items: 100}}
  settings: {{network: mlp, latent_dim: 4, batch_size: 32, weight: 0.1, warmup: 0.25}}
  scores:
    - {{part: test, items: 150}}
    - {{part: source, items: 40}}
"""


def plan(folder, name="tiny", method="KLAdapter", budget=32):
    path = folder / "plan.yaml"
    path.write_text(PLAN.format(name=name, method=method, budget=budget))
    return load_plans(path)[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    train_networks([plan(folder)], folder, folder / "checkpoints", say=lambda line: None)
    return folder


def test_the_card_says_what_was_seen(trained):
    card = load_card("tiny", trained)
    assert [point["updates"] for point in card["curve"]] == list(range(2, 33, 2))
    assert {part: facts["examples"] for part, facts in card["data"].items()} == {
        "source": 300, "target": 200, "test": 150,
    }  # fmt: skip
    parts = domains.read_parts(card["config"]["data"])
    network = load_network("tiny", folder=trained)
    X, y = parts["test"]
    right = network.predict(X) == y
    row = card["scores"][0]
    assert (row["part"], row["items"]) == ("test", 150)
    assert row["accuracy"] == pytest.approx(right.mean(), abs=1e-5)
    # Another order of the same answers: which items come first is drawn once.
    assert domains.unpack(row["correct"]).sum() == right.sum()
    # The curve ends where the network does, on target images by labels that no step has seen.
    seen = domains.answers(network, parts, {"part": "target", "items": 100})
    assert card["curve"][-1]["score"] == pytest.approx(seen.mean(), abs=1e-5)


def test_looking_does_not_change_the_training(trained, tmp_path):
    estimator = plan(tmp_path).estimator()
    parts = domains.read_parts(load_card("tiny", trained)["config"]["data"])
    estimator.fit(*parts["source"], parts["target"][0], device="cpu")
    arrays, _ = load_arrays(trained / "tiny.safetensors")
    for name, array in estimator._fitted_arrays().items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_both_frameworks_read_the_file_and_begin_alike(trained, framework):
    assert [n for *_, n in repeat_scores("tiny", framework, trained)] == [150, 40]
    for stored, again, _ in repeat_scores("tiny", framework, trained, n=40):
        assert stored == again
    stored, again = repeat_first_steps("tiny", framework, trained)
    assert again == pytest.approx(stored, rel=1e-4)
    assert len(again) == 2


def test_the_second_loss_is_that_of_the_long_run(tmp_path):
    """A run of two steps in all would have its alignment at full weight in the second."""
    planned = plan(tmp_path)
    parts = domains.read_parts(planned.data)
    first = domains.first_losses(planned.estimator(), parts, {}, "cpu", 3)
    whole = planned.estimator().fit(*parts["source"], parts["target"][0], device="cpu")
    np.testing.assert_array_equal(first, whole.history_["loss"][:3])
    short = planned.estimator().set_params(steps=3, warmup=0.25)
    short.fit(*parts["source"], parts["target"][0], device="cpu")
    assert (short.history_["loss"] != first).any()


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    planned = plan(tmp_path, "long", "MMDAdapter", budget=240)
    train_networks([planned], whole, tmp_path / "c1", say=lambda line: None)
    code = """
        import os, signal, sys
        from fewshot_course.experiments import looks
        from fewshot_course.experiments.networks import load_plans, train_networks

        is_due = looks.Looks.is_due

        def deadly(self, updates):
            if updates == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
            return is_due(self, updates)

        looks.Looks.is_due = deadly
        train_networks(load_plans(sys.argv[2]).values(), sys.argv[3], sys.argv[4])
    """
    arguments = [str(tmp_path / "plan.yaml"), str(killed), str(tmp_path / "c2")]
    for after in ("130", "205"):
        command = [sys.executable, "-c", textwrap.dedent(code), after, *arguments]
        done = subprocess.run(command, check=False, env=os.environ)
        assert done.returncode == -signal.SIGKILL
    train_networks([planned], killed, tmp_path / "c2", say=lambda line: None)
    first, second = load_card("long", whole), load_card("long", killed)
    for key in ("weights", "first_losses", "scores", "plateau", "data"):
        assert first[key] == second[key]
    for one, other in zip(first["curve"], second["curve"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("draw: 3", "draw: -3", "data: draw must lie"),
        ("n_source: 300", "n_sauce: 300", "Did you mean 'n_source'"),
        ("data: mnist5k->uci_digits", "data: mnist5k->uci_digit", "Did you mean"),
        ("{items: 100}", "{tasks: 100}", "validation: key='tasks' is not known"),
        ("part: test", "part: tests", "Did you mean 'test'"),
        ("weight: 0.1", "steps: 10", "it is given by 'budget'"),
        ("budget: 32", "task: {ways: 5}\n  budget: 32", "task: key='ways'"),
    ],
)
def test_bad_plans_are_named(tmp_path, old, new, message):
    text = PLAN.format(name="tiny", method="KLAdapter", budget=32)
    assert old in text
    path = tmp_path / "plan.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"entry 1 \(tiny\): .*{message}"):
        load_plans(path)


def test_other_data_are_named(trained, monkeypatch):
    read = domains.read_parts

    def other(data):
        parts = read(data)
        return {**parts, "target": (parts["target"][0] * 0.5, parts["target"][1])}

    monkeypatch.setattr(domains, "read_parts", other)
    with pytest.raises(DataMismatch, match="the target part of mnist5k->uci_digits"):
        repeat_first_steps("tiny", folder=trained)
