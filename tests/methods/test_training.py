"""The one training loop: stop on NaN, logs, devices, checkpoints, and real kills."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import killed_training
import numpy as np
import pytest

from fewshot_course._streams import STREAM_NAMES, Streams
from fewshot_course.both import training as _loop
from fewshot_course.both.optim import ReduceLROnPlateau
from fewshot_course.both.training import Run, TrainingDiverged, describe
from fewshot_course.checkpoints import CheckpointError, load_checkpoint, lock_folder

KILLS = 5
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)), np.arange(24) % 2


class Interrupted(Exception):
    """What stops a run half-way."""


def torch_update(module, optimizer, x):
    loss = module(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def tf_update(module, optimizer, x):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(module(x)))
    optimizer.apply(tape.gradient(loss, module.trainable_variables))
    return loss


def train(framework, steps=20, loss=None, stop_at=None, streams=None, **options):
    """Fit one linear layer to noise from a stream by SGD, its rate under a schedule.

    ``loss`` maps a step's number to a loss to report instead; ``stop_at`` interrupts.
    """
    networks, optim = framework.module("networks"), framework.module("optim")
    training = framework.module("_training")
    streams = streams or Streams.from_seed(0)
    module = networks.build("mlp", (3,), 1, streams.init, "float64")
    schedule = ReduceLROnPlateau(0.02, factor=0.5, patience=0)
    is_torch = framework.name == "torch"
    parameters = list(module.parameters()) if is_torch else module.trainable_variables
    optimizer = optim.sgd(parameters, lr=0.02, momentum=0.9)
    update = torch_update if is_torch else tf_update

    def step(number):
        if number == stop_at:
            raise Interrupted
        x = training.normal(streams.noise, (4, 3), "cpu", "float64")
        value = update(module, optimizer, x)
        if loss is not None and number in loss:
            return {"loss": framework.tensor(loss[number])}
        # Set after the update, as a schedule on a validation loss is: a resumed run must not
        # start from the first rate again.
        optim.set_learning_rate(optimizer, schedule.step(float(value)))
        return {"loss": value, "rate": framework.tensor(schedule.lr)}

    history = training.train(
        step, Run(**options), steps=steps, modules={"network": module},
        optimizers={"optimizer": optimizer}, fingerprint={"method": "toy"},
        resumables={"streams": streams, "schedule": schedule},
    )  # fmt: skip
    return history, networks.to_numpy(module)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(_loop, "CHECKPOINT_EVERY", 5)


def adapter(framework, **settings):
    settings = {"network": "mlp", "latent_dim": 2, "steps": 6, "random_state": 0, **settings}
    return framework.module("kl_adaptation").KLAdapter(**settings)


# ---------------------------------------------------------------- NaN


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_step_and_rate(framework, often, tmp_path, bad):
    with pytest.raises(TrainingDiverged, match=rf"the loss is {bad} at step 7 .*rate 0\.\d+"):
        train(framework, loss={7: bad}, checkpoint_dir=tmp_path)
    arrays, meta = load_checkpoint(tmp_path)
    assert meta["step"] == 5  # the last one before; nothing of the diverged run was kept
    assert len(arrays["history.loss"]) == 5


def test_a_diverging_fit_says_which_rate(framework, tmp_path):
    one = adapter(framework, lr=1e30, steps=200)
    with pytest.raises(TrainingDiverged, match=r"at step \d+ \(learning rate 1e\+30\). Lower"):
        one.fit(X, Y, X, device="cpu", checkpoint_dir=tmp_path)
    assert load_checkpoint(tmp_path) is None


# ---------------------------------------------------------------- progress and logs


def test_progress_is_shown_only_when_asked_for(framework, capfd):
    train(framework)
    quiet = capfd.readouterr()
    assert "step" not in quiet.err + quiet.out
    train(framework, progress=True)
    assert "20/20" in capfd.readouterr().err


def test_a_function_is_told_of_each_update(framework, often, tmp_path, capfd):
    seen = []

    def told(done, losses):
        seen.append((done, losses["loss"]))
        if len(seen) == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(framework, progress=told, checkpoint_dir=tmp_path)
    rest = []
    history, _ = train(framework, progress=lambda *one: rest.append(one), checkpoint_dir=tmp_path)
    assert capfd.readouterr().err == ""
    assert seen == [(done, history["loss"][done - 1]) for done in range(1, 8)]
    # The checkpoint is that of five updates; every scalar of a step is told.
    expected = [(i + 1, {k: v[i] for k, v in history.items()}) for i in range(5, 20)]
    assert rest == expected


def test_log_dir_holds_the_history_for_tensorboard(framework, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    history, _ = train(framework, log_dir=tmp_path)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    logged = {
        (value.tag, event.step): float(tensor_util.make_ndarray(value.tensor))
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }
    for name in ("loss", "rate"):
        values = [logged[name, step] for step in range(20)]
        np.testing.assert_allclose(values, history[name], rtol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the descriptors of Linux")
def test_logs_are_closed_with_the_training(framework, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")

    def open_now():
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for number in range(6):
        train(framework, steps=2, log_dir=tmp_path / str(number))
        if number == 1:  # what the first ones start is there for good
            before = open_now()
    assert open_now() == before


def test_a_run_with_other_threads_or_device_does_not_go_on(framework, often, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        train(framework, stop_at=12, checkpoint_dir=tmp_path)
    training = framework.module("_training")
    if framework.name == "torch":
        threads = torch_threads()
        monkeypatch.setattr(training.torch, "get_num_threads", lambda: threads + 1)
    else:
        monkeypatch.setattr(training, "_threads", lambda: 99)
    with pytest.raises(CheckpointError, match=r"threads is \d+ in the checkpoint and \d+ now"):
        train(framework, checkpoint_dir=tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(training, "device_kind", lambda device: "cuda")
    with pytest.raises(CheckpointError, match='device is "cpu" in the checkpoint and "cuda" now'):
        train(framework, checkpoint_dir=tmp_path)


def torch_threads():
    import torch

    return torch.get_num_threads()


def test_a_folder_that_another_training_has_is_refused(framework, tmp_path):
    def meanwhile():
        with pytest.raises(CheckpointError, match="Another run is training"):
            train(framework, checkpoint_dir=tmp_path)

    with lock_folder(tmp_path), ThreadPoolExecutor(1) as pool:
        pool.submit(meanwhile).result()
    train(framework, checkpoint_dir=tmp_path)


# ---------------------------------------------------------------- devices


def test_devices(framework):
    resolve = framework.module("_training").resolve_device
    assert resolve("cpu") == resolve("cpu:0") == "cpu"
    assert resolve(resolve("auto")) == resolve("auto")
    for absent in ("abacus", "cuda:99", ""):
        with pytest.raises(ValueError, match=f"device='{absent}' cannot be used here"):
            resolve(absent)
    with pytest.raises(TypeError, match="device must be a string"):
        resolve(None)


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("stop_at", [1, 5, 13])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(framework, often, tmp_path, stop_at):
    """Weights, momentum, learning rate, schedule, noise stream and history."""
    history, weights = train(framework)
    assert len(set(history["rate"])) > 2  # else the schedule would not be tested
    with pytest.raises(Interrupted):
        train(framework, stop_at=stop_at, checkpoint_dir=tmp_path)
    # With a checkpoint at hand everything must come from it: another seed changes nothing.
    streams = Streams.from_seed(9 if stop_at >= 5 else 0)
    again, resumed = train(framework, streams=streams, checkpoint_dir=tmp_path)
    for name in weights:
        np.testing.assert_array_equal(weights[name], resumed[name])
    for name in history:
        np.testing.assert_array_equal(history[name], again[name])
    finished, same = train(framework, checkpoint_dir=tmp_path, stop_at=0)  # no step is done again
    np.testing.assert_array_equal(finished["loss"], history["loss"])
    np.testing.assert_array_equal(same["head.weight"], weights["head.weight"])


def test_a_training_killed_five_times_ends_with_the_same_weights(framework, tmp_path):
    script = Path(killed_training.__file__)
    done = subprocess.run(
        [sys.executable, script, framework.name, tmp_path, str(KILLS), "0"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == KILLS
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("resumed", "whole"))
    assert len(one["loss"]) == killed_training.STEPS
    assert any(name.endswith("running_mean") for name in two.files)
    for name in two.files:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_another_run_is_refused_by_name(framework, tmp_path):
    adapter(framework).fit(X, Y, X, device="cpu", checkpoint_dir=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = X.copy()
    other[0, 0] += 1
    for settings, target, named in (
        ({"lr": 0.5}, X, "params.lr is .*0.001.* in the checkpoint and .*0.5"),
        ({"random_state": 1}, X, "params.random_state"),
        ({"latent_dim": 3}, X, r"architecture\.network"),
        ({}, other, "data is"),
    ):
        with pytest.raises(CheckpointError, match=f"belongs to another run: .*{named}"):
            adapter(framework, **settings).fit(X, Y, target, device="cpu", checkpoint_dir=tmp_path)
    twin = type(framework)({"torch": "tensorflow", "tensorflow": "torch"}[framework.name])
    with pytest.raises(CheckpointError, match='framework is "'):
        adapter(twin).fit(X, Y, X, device="cpu", checkpoint_dir=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named_before_training(framework, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"Cannot write a checkpoint to .*file"):
        train(framework, checkpoint_dir=tmp_path / "file", stop_at=0)


def test_hyper_parameters_are_told_alike_in_every_process():
    """A function's address, or NumPy's own name of a number, would refuse one's own run."""
    one, two = ({"network": lambda: None, "lr": lr} for lr in (0.1, np.float64(0.1)))
    assert describe(one) == describe(two)
    assert json.loads(json.dumps(describe(one))) == describe(one)
    assert describe({"lr": 0.1}) != describe({"lr": 0.2})


def test_random_streams_go_on_from_their_state():
    streams = Streams.from_seed(3)
    for name in STREAM_NAMES:
        getattr(streams, name).normal(size=7)
    state = json.loads(json.dumps(streams.state()))
    expected = {name: getattr(streams, name).normal(size=5) for name in STREAM_NAMES}
    other = Streams.from_seed(None)
    other.restore(state)
    for name in STREAM_NAMES:
        np.testing.assert_array_equal(getattr(other, name).normal(size=5), expected[name])


def test_random_streams_are_named_and_independent():
    one, two = Streams.from_seed(0), Streams.from_seed(0)
    one.noise.normal(size=100)
    np.testing.assert_array_equal(one.batches.permutation(9), two.batches.permutation(9))
    draws = {tuple(getattr(two, name).normal(size=3)) for name in STREAM_NAMES}
    assert len(draws) == len(STREAM_NAMES)
    for bad, error in ((-1, ValueError), (0.5, TypeError), (True, TypeError), ("a", TypeError)):
        with pytest.raises(error, match=r"^random_state must be"):
            Streams.from_seed(bad)
