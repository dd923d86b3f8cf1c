"""The course's trained networks: plans, the queue, cards, loading, and what each refuses."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from frameworks import FRAMEWORKS
from typer.testing import CliRunner

from fewshot_course import cli
from fewshot_course.data import where
from fewshot_course.experiments import characters, domains, networks
from fewshot_course.experiments.maml import nearest_mean_accuracy
from fewshot_course.experiments.networks import (
    ArchitectureMismatch,
    CardMismatch,
    DataMismatch,
    MissingNetwork,
    NetworkError,
    TooLarge,
    load_card,
    load_network,
    load_plans,
    repeat_first_steps,
    repeat_scores,
    train_networks,
    try_settings,
)
from fewshot_course.weights import load_arrays, save_arrays

ROOT = Path(__file__).parents[2]
STORED = sorted((ROOT / "results" / "networks").glob("*.json"))
READ_PARTS = characters.read_parts
PLAN = """
- name: {name}
  method: ProtoNet
  framework: torch
  data: {{name: glyphs, size: 7}}
  seed: 3
  budget: {budget}
  task: {{ways: 5, shots: 1, queries: 2}}
  validation: {{ways: 5, shots: 1, queries: 2, tasks: 10}}
  settings: {{network: mlp, n_tasks: 1, hidden: [8]}}
  scores:
    - {{ways: 5, shots: 1, queries: 2, tasks: 60}}
"""


@pytest.fixture(scope="module", autouse=True)
def _read_once():
    """Reading and dividing Omniglot takes seconds; here it is done once."""
    read, known = characters.read_parts, {}

    def read_once(data):
        key = json.dumps(data)
        if key not in known:
            known[key] = read(data)
        return dict(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "read_parts", read_once)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one small network; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("networks")
    train_networks([plan("tiny", folder)], folder, folder / "checkpoints", say=lambda line: None)
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    for path in trained.glob("tiny.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def plan(name, folder, budget=20):
    path = folder / "plan.yaml"
    path.write_text(PLAN.format(name=name, budget=budget))
    return load_plans(path)[name]


def change_card(folder, **changes):
    path = folder / "tiny.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sign(folder):
    """Make the card that of the weights beside it, as far as hashes go."""
    card = json.loads((folder / "tiny.json").read_text())
    sha256 = networks._sha256(folder / "tiny.safetensors")
    change_card(
        folder,
        weights=card["weights"] | {"sha256": sha256},
        config_hash=networks._hash_config(card["config"]),
    )


# ---------------------------------------------------------------------------- the stored ones


def skip_without_data(path):
    data = json.loads(path.read_text())["config"]["data"]
    names = [data["name"]] if "name" in data else data["data"].split("->")
    missing = [name for name in names if name != "rotated" and where(name) is None]
    if missing:
        pytest.skip(f"full data sets: set FEWSHOT_COURSE_DATA to a folder with {missing[0]}")


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_networks_are_those_of_the_plan(path):
    planned = load_plans(ROOT / "results" / "networks.yaml")[path.stem]
    card = load_card(path.stem)
    assert card["config_hash"] == planned.config_hash
    assert card["weights"]["bytes"] <= networks.MAX_BYTES
    updates = [point["updates"] for point in card["curve"]]
    assert updates == sorted(set(updates))
    first = {characters: 0, domains: round(planned.budget / 16)}  # an adapter is told of updates
    assert (updates[0], updates[-1]) == (first[planned.recipe], planned.budget)
    for row, wanted in zip(card["scores"], planned.scores, strict=True):
        assert {key: row[key] for key in wanted} == wanted
        share = planned.recipe.shares(planned.recipe.unpack(row["correct"]), row)
        assert len(share) == row[planned.recipe.UNITS]
        assert row["accuracy"] == pytest.approx(share.mean(), abs=1e-5)
        assert row["low"] <= row["accuracy"] <= row["high"]


def test_stored_networks_have_room():
    sizes = [path.with_suffix(".safetensors").stat().st_size for path in STORED]
    assert sum(sizes) <= networks.MAX_BYTES_IN_ALL


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_first_steps_of_stored_networks_come_out_again(path):
    skip_without_data(path)
    stored, again = repeat_first_steps(path.stem)
    # Another processor rounds otherwise in bfloat16, which has 8 bits a number.
    half = json.loads(path.read_text())["config"]["settings"].get("precision") == "bfloat16"
    assert again == pytest.approx(stored, rel=2e-2 if half else 1e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_networks_score_as_their_cards_say(path, framework):
    skip_without_data(path)
    n = 10 if "ways" in json.loads(path.read_text())["scores"][0] else 500
    for stored, again, queries in repeat_scores(path.stem, framework, n=n):
        assert abs(stored - again) <= max(1, 0.002 * queries)


# ---------------------------------------------------------------------------- the queue


def test_what_is_stored_is_not_trained_again(copy):
    before = (copy / "tiny.json").stat().st_mtime_ns
    lines = []
    (path,) = train_networks([plan("tiny", copy)], copy, copy / "c", say=lines.append)
    assert path.stat().st_mtime_ns == before
    assert lines == []


def test_another_plan_of_the_same_name_is_refused_before_any_training(copy):
    with pytest.raises(CardMismatch, match="made by another plan: budget was 20 and is 30"):
        train_networks([plan("other", copy), plan("tiny", copy, 30)], copy, copy / "c")
    assert not (copy / "other.json").exists()


def test_new_rows_of_scores_do_not_make_it_another_network(copy):
    planned = plan("tiny", copy)
    assert networks.dataclasses.replace(planned, scores=()).config_hash == planned.config_hash


@pytest.mark.parametrize(
    ("limit", "message"),
    [("MAX_BYTES", r"take 2,\d{3} bytes, more than 100"), ("MAX_BYTES_IN_ALL", "would take")],
)
def test_weights_without_room_are_refused_before_the_training(copy, monkeypatch, limit, message):
    monkeypatch.setattr(networks, limit, 100)
    monkeypatch.setattr(characters, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(TooLarge, match=message):
        train_networks([plan("large", copy)], copy, copy / "c", say=lambda line: None)
    assert not list(copy.glob("large*"))


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path):
    """Killed twice in mid-training, it has the weights, losses and looks of one never killed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    planned = plan("long", tmp_path, budget=330)
    train_networks([planned], whole, tmp_path / "c1", say=lambda line: None)
    code = """
        import os, signal, sys
        from fewshot_course.experiments import characters
        from fewshot_course.experiments.networks import load_plans, train_networks

        sample, calls = characters.Watched.sample, []

        def deadly(self, rng, n_tasks):
            calls.append(n_tasks)
            if len(calls) == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
            return sample(self, rng, n_tasks)

        characters.Watched.sample = deadly
        train_networks(load_plans(sys.argv[2]).values(), sys.argv[3], sys.argv[4])
    """
    arguments = [str(tmp_path / "plan.yaml"), str(killed), str(tmp_path / "c2")]
    for after in ("150", "110"):  # the second one begins at update 100
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), after, *arguments], check=False
        )
        assert done.returncode == -signal.SIGKILL
        assert not (killed / "long.json").exists()
    assert (tmp_path / "c2" / "long" / "checkpoint.safetensors").is_file()
    train_networks([planned], killed, tmp_path / "c2", say=lambda line: None)
    first, second = load_card("long", whole), load_card("long", killed)
    for key in ("weights", "first_losses", "scores", "plateau", "data"):
        assert first[key] == second[key]
    for one, other in zip(first["curve"], second["curve"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    seconds = [point["seconds"] for point in second["curve"]]
    assert seconds == sorted(seconds)
    assert not (tmp_path / "c2" / "long").exists()


def test_checkpoints_of_another_plan_are_named(tmp_path, trained):
    folder = tmp_path / "c" / "tiny"
    characters.train(
        plan("tiny", tmp_path, budget=5).estimator(),
        characters.read_parts({"name": "glyphs", "size": 7}),
        {"ways": 5, "shots": 1, "queries": 2},
        {"ways": 5, "shots": 1, "queries": 2, "tasks": 2},
        folder,
    )
    with pytest.raises(NetworkError, match="belongs to another run"):
        train_networks([plan("tiny", tmp_path)], tmp_path / "out", tmp_path / "c", say=str)


def test_looking_does_not_change_the_training(trained, tmp_path):
    estimator = plan("tiny", tmp_path).estimator()
    parts = characters.read_parts({"name": "glyphs", "size": 7})
    estimator.fit(characters.sampler(parts["train"], {"ways": 5, "shots": 1, "queries": 2}))
    arrays, _ = load_arrays(trained / "tiny.safetensors")
    for name, array in estimator._fitted_arrays().items():
        assert np.array_equal(array, arrays[name])


def test_trials_are_kept_with_their_settings_and_not_run_again(tmp_path):
    out = tmp_path / "choices" / "networks.jsonl"
    fine = plan("fine", tmp_path)
    wild = networks.dataclasses.replace(fine, name="wild", settings={**fine.settings, "lr": 1e30})
    lines = try_settings([fine, wild], out, tmp_path / "c", say=lambda line: None)
    assert lines[0]["scored_on"] == "validation"
    assert lines[0]["low"] <= lines[0]["score"] <= lines[0]["high"]
    assert "learning rate" in lines[1]["error"]
    stored = out.read_text()
    assert try_settings([fine, wild], out, tmp_path / "c", say=pytest.fail) == lines
    assert out.read_text() == stored


# ---------------------------------------------------------------------------- parts


def test_no_part_of_the_glyphs_has_images_of_another():
    parts = characters.read_parts({"name": "glyphs", "size": 28})
    seen = [{image.tobytes() for image in parts[name][0]} for name in parts]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert [int(y.max()) + 1 for _, y in parts.values()] == [715, 81, 235]


@pytest.mark.real_data
def test_the_parts_of_omniglot_share_no_character_and_keep_their_turns_together():
    parts = characters.read_parts({"name": "omniglot", "size": 28})
    assert [int(y.max()) + 1 for _, y in parts.values()] == [4400, 400, 423, 1692]
    drawings = {
        name: {image.tobytes() for image in parts[name][0]}
        for name in ("train", "validation", "turned")
    }
    # Two people may draw a stroke alike to the pixel; whole characters would share twenty.
    for one in drawings:
        for other in drawings:
            assert one == other or len(drawings[one] & drawings[other]) < 20


def test_fewer_test_tasks_are_the_first_of_more(trained):
    estimator = load_network("tiny", folder=trained)
    arrays = characters.read_parts({"name": "glyphs", "size": 7})["test"]
    task = {"ways": 5, "shots": 1, "queries": 2, "tasks": 60}
    many = characters.count_correct(estimator, arrays, task, seed=2)
    few = characters.count_correct(estimator, arrays, {**task, "tasks": 7}, seed=2)
    assert np.array_equal(many[:7], few)


# ---------------------------------------------------------------------------- loading, checking


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_both_frameworks_load_one_file_and_score_alike(trained, framework):
    (row,) = repeat_scores("tiny", framework, trained)
    stored, again, queries = row
    assert abs(stored - again) <= 1
    assert queries == 20 * 10


BASELINES = {
    "FrozenBody": {"network": "mlp", "hidden": [8], "n_tasks": 1, "lr": 0.01},
    "MatchingNet": {"network": "mlp", "hidden": [8], "n_tasks": 1, "scale": 10.0},
    "ProtoNet": {"network": "mlp", "hidden": [], "n_tasks": 1},  # raw pixels
}


@pytest.mark.parametrize("method", BASELINES)
def test_baselines_go_through_the_same_queue_and_score_alike_in_both_frameworks(method, tmp_path):
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    planned = networks.dataclasses.replace(
        plan("tiny", tmp_path), method=method, settings=BASELINES[method]
    )
    train_networks([planned], tmp_path, tmp_path / "c", say=lambda line: None)
    card = load_card("tiny", tmp_path)
    assert card["weights"]["bytes"] < 5_000  # the head of all 715 base classes is left behind
    for framework in ("torch", "tensorflow"):
        stored, again = repeat_first_steps("tiny", framework, tmp_path)
        assert again == pytest.approx(stored, rel=1e-4)
        ((right, found, _),) = repeat_scores("tiny", framework, tmp_path)
        assert abs(right - found) <= 1


def test_raw_pixels_have_the_score_of_the_nearest_mean(tmp_path):
    planned = networks.dataclasses.replace(
        plan("tiny", tmp_path), settings=BASELINES["ProtoNet"], budget=2
    )
    train_networks([planned], tmp_path, tmp_path / "c", say=lambda line: None)
    test = characters.read_parts(planned.data)["test"]

    class Pixels:
        evaluate = staticmethod(nearest_mean_accuracy)

    row = load_card("tiny", tmp_path)["scores"][0]
    expected = characters.count_correct(Pixels, test, row, characters.TEST_SEED)
    # Differences of squares and products round differently where two means are equally near.
    assert np.abs(np.array(row["correct"]) - expected).sum() <= 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_first_steps_come_out_again_in_both_frameworks(trained, framework):
    stored, again = repeat_first_steps("tiny", framework, trained)
    assert again == pytest.approx(stored, rel=1e-4)


def test_another_seed_has_other_first_steps(copy):
    config = load_card("tiny", copy)["config"]
    change_card(copy, config={**config, "seed": 4})
    sign(copy)
    stored, again = repeat_first_steps("tiny", folder=copy)
    assert again != pytest.approx(stored, rel=1e-4)


def test_other_weights_have_other_scores(copy):
    arrays, header = load_arrays(copy / "tiny.safetensors")
    noise = np.random.default_rng(0)
    arrays = {k: noise.standard_normal(v.shape).astype(v.dtype) for k, v in arrays.items()}
    save_arrays(copy / "tiny.safetensors", arrays, header)
    with pytest.raises(CardMismatch, match="not the card of"):
        load_network("tiny", folder=copy)
    sign(copy)
    ((stored, again, _),) = repeat_scores("tiny", folder=copy)
    assert abs(stored - again) > 1


def test_a_card_changed_by_hand_is_refused(copy):
    config = load_card("tiny", copy)["config"]
    change_card(copy, config={**config, "budget": 4000})
    with pytest.raises(CardMismatch, match="changed by hand"):
        load_card("tiny", copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1}'])
def test_what_is_no_card_is_refused(copy, content):
    (copy / "tiny.json").write_text(content)
    with pytest.raises(CardMismatch, match="damaged or no card"):
        load_card("tiny", copy)


def test_a_card_of_a_later_version_is_refused(copy):
    change_card(copy, schema=2)
    with pytest.raises(CardMismatch, match="schema 2, this version reads 1"):
        load_card("tiny", copy)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden", [16], "hidden"),
        ("network", "conv4", "network"),
        ("method", "MAML", "method"),
    ],
)
def test_another_architecture_is_refused(copy, key, value, message):
    config = load_card("tiny", copy)["config"]
    if key == "method":
        config["method"] = value
    else:
        config["settings"][key] = value
    change_card(copy, config=config)
    sign(copy)
    with pytest.raises(ArchitectureMismatch, match=f"differ in .*{message}"):
        load_network("tiny", folder=copy)


def test_weights_of_other_shapes_are_refused(copy):
    arrays, header = load_arrays(copy / "tiny.safetensors")
    arrays["network.body.0.weight"] = arrays["network.body.0.weight"][:, :-1]
    save_arrays(copy / "tiny.safetensors", arrays, header)
    sign(copy)
    with pytest.raises(ArchitectureMismatch, match=r"shape of network\.body\.0\.weight"):
        load_network("tiny", folder=copy)


@pytest.mark.parametrize("part", ["train", "test"])
def test_other_data_is_refused(copy, part):
    facts = load_card("tiny", copy)["data"]
    change_card(copy, data={**facts, part: {**facts[part], "sha256": "0" * 64}})
    check = repeat_first_steps if part == "train" else repeat_scores
    with pytest.raises(DataMismatch, match=f"the {part} part of glyphs is not what"):
        check("tiny", folder=copy)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_missing_file_names_what_there_is_and_what_to_do(copy, suffix):
    (copy / "tiny").with_suffix(suffix).unlink()
    with pytest.raises(MissingNetwork, match=f"no file .*tiny{suffix}.*fewshot train tiny"):
        load_network("tiny", folder=copy)


def test_a_missing_archive_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("FEWSHOT_COURSE_DATA", raising=False)
    monkeypatch.setattr("fewshot_course.data._files._download", refuse)
    monkeypatch.setattr(characters, "read_parts", READ_PARTS)
    planned = networks.dataclasses.replace(
        plan("tiny", tmp_path), data={"name": "omniglot", "size": 28}
    )
    known = "images_background.zip could not be had"
    with pytest.raises(NetworkError, match=known):
        train_networks([planned], tmp_path / "out", tmp_path / "c", say=str)


def refuse(file):
    from fewshot_course.data import DataError

    raise DataError(f"{file.path.split('/')[1]} could not be had")


# ---------------------------------------------------------------------------- plans, commands


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method: ProtoNet", "method: ProtoNett", "Did you mean 'ProtoNet'"),
        ("budget: 20", "budgets: 20", "Did you mean 'budget'"),
        ("  seed: 3\n", "", "entry 1 .tiny.: the entry lacks seed"),
        ("seed: 3", "seed: -1", "seed must lie in"),
        ("shots: 1, queries: 2}", "shots: 1}", "task lacks queries"),
        ("n_tasks: 1", "n_task: 1", "Did you mean 'n_tasks'"),
        ("n_tasks: 1", "iterations: 9", "it is given by 'budget'"),
        ("framework: torch", "framework: jax", "framework='jax' is not known"),
        ("name: tiny", "name: Tiny one", "lower case letters"),
        ("tasks: 60", "tasks: 60, turn: true", "Did you mean 'turns'"),
        ("- name", "name", "must hold a list|is no YAML"),
    ],
)
def test_a_wrong_plan_is_named(tmp_path, old, new, message):
    path = tmp_path / "plan.yaml"
    text = PLAN.format(name="tiny", budget=20)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises((ValueError, TypeError), match=message):
        load_plans(path)["tiny"].estimator()


def test_a_name_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(name="tiny", budget=20) * 2)
    with pytest.raises(ValueError, match="has 'tiny' twice"):
        load_plans(path)


def test_the_courses_own_plans_can_be_built():
    for name in ("networks.yaml", "choices/networks.yaml"):
        plans = load_plans(ROOT / "results" / name)
        assert plans
        for planned in plans.values():
            planned.estimator()._check_parameters()


def fewshot(*arguments):
    return CliRunner().invoke(cli.app, ["train", *map(str, arguments)])


def test_the_command_trains_what_it_is_told(tmp_path):
    plan("tiny", tmp_path)
    done = fewshot("tiny", "--plan", tmp_path / "plan.yaml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "tiny (1 of 1): 20 updates of ProtoNet" in done.output
    assert load_network("tiny", folder=tmp_path / "out").n_outputs_ == 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "name networks, or take --all"),
        (["tinny"], 2, "Did you mean 'tiny'"),
        (["tiny", "--all"], 2, "name networks, or take --all"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, arguments, code, message):
    plan("tiny", tmp_path)
    done = fewshot(*arguments, "--plan", tmp_path / "plan.yaml")
    assert done.exit_code == code
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_the_command_ends_with_1_where_a_card_does_not_match(copy):
    plan("tiny", copy, budget=21)
    done = fewshot("--all", "--plan", copy / "plan.yaml", "--out", copy)
    assert done.exit_code == 1
    assert "made by another plan" in done.output
