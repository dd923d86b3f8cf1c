"""Checkpoints: what a kill, a bad disk or a wrong folder may not do."""

import errno
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course import checkpoints
from fewshot_course.checkpoints import (
    CURRENT,
    PREVIOUS,
    CheckpointError,
    check_folder,
    load_checkpoint,
    lock_folder,
    save_checkpoint,
)

RUN = {
    "method": "kl",
    "version": "0.1.0",
    "architecture": {"w": (2, 3), "b": [3]},
    "data": "sha-of-the-data",
}


def save(folder, step, run=RUN):
    arrays = {"w": np.full((2, 3), step, np.float32), "b": np.arange(3.0) + step}
    return save_checkpoint(folder, arrays, {"step": step}, fingerprint=run)


def test_everything_comes_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "f32": rng.normal(size=(3, 4)).astype(np.float32),
        "f64": rng.normal(size=(4, 3)).T,  # not contiguous
        "big-endian": np.arange(3, dtype=">f8"),
        "scalar": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 5)),
        "mask": np.array([True, False]),
    }
    meta = {"stream": rng.bit_generator.state, "best": float("inf"), "losses": [0.1, 1 / 3]}
    save_checkpoint(tmp_path, arrays, meta, fingerprint=RUN)
    loaded = load_checkpoint(tmp_path, RUN)
    assert loaded.meta == meta
    assert loaded.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded.arrays[name].shape == array.shape
        assert loaded.arrays[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(loaded.arrays[name], array)
    loaded.arrays["f32"] += 1  # a copy, not a view of the file


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path, RUN) is None
    assert load_checkpoint(tmp_path / "none", RUN) is None


def test_the_last_one_is_loaded_and_the_one_before_it_kept(tmp_path):
    for step in range(3):
        path = save(tmp_path / "new" / "folder", step)
    assert load_checkpoint(path.parent, RUN).meta == {"step": 2}
    path.unlink()  # what a kill between the two renames leaves
    assert load_checkpoint(path.parent, RUN).meta == {"step": 1}
    assert sorted(os.listdir(path.parent)) == [PREVIOUS]


@pytest.mark.parametrize(
    ("key", "old", "new", "change"),
    [
        ("version", '"0.1.0"', '"0.2.0"', {"version": "0.2.0"}),
        ("data", '"sha-of-the-data"', '"other"', {"data": "other"}),
        ("architecture.w", "[2, 3]", "[2, 4]", {"architecture": {"w": (2, 4), "b": (3,)}}),
        ("architecture.c", "absent", "[1]", {"architecture": {"w": [2, 3], "b": [3], "c": [1]}}),
        ("dropout", "absent", "0.5", {"dropout": 0.5}),
    ],
)
def test_a_foreign_checkpoint_is_refused_and_left_alone(tmp_path, key, old, new, change):
    save(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for action in (lambda r: load_checkpoint(tmp_path, r), lambda r: save(tmp_path, 2, r)):
        with pytest.raises(CheckpointError, match="belongs to another run") as error:
            action({**RUN, **change})
        message = str(error.value)
        assert f"{key} is {old} in the checkpoint and {new} now" in message
        assert "Choose another folder" in message
        assert CURRENT in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_foreign_previous_checkpoint_is_not_overwritten(tmp_path):
    save(tmp_path, 1)
    (tmp_path / CURRENT).rename(tmp_path / PREVIOUS)
    with pytest.raises(CheckpointError, match="another run"):
        save(tmp_path, 2, {**RUN, "data": "other"})
    assert os.listdir(tmp_path) == [PREVIOUS]


def damage_truncate(raw):
    return raw[: len(raw) // 2]


def damage_flip(raw):
    return raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:]


def damage_empty(raw):
    return b""


def damage_text(raw):
    return b"not a checkpoint at all, but a text that somebody put there"


DAMAGES = [damage_truncate, damage_flip, damage_empty, damage_text]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    path = save(tmp_path, 1)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="no good checkpoint before it") as error:
        load_checkpoint(tmp_path, RUN)
    assert str(path) in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_previous_one_steps_in_and_survives_the_next_save(tmp_path, damage):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint\.safetensors is damaged.*the one before it"):
        assert load_checkpoint(tmp_path, RUN).meta == {"step": 1}
    save(tmp_path, 3)
    assert load_checkpoint(tmp_path, RUN).meta == {"step": 3}
    path.unlink()
    assert load_checkpoint(tmp_path, RUN).meta == {"step": 1}
    assert (tmp_path / "checkpoint.damaged.safetensors").exists()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return save(tmp_path_factory.mktemp("good"), 5).read_bytes()


@settings(derandomize=True, max_examples=300, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_changes_what_is_loaded(good, tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("flip")
    raw = bytearray(good)
    raw[int(place * len(raw))] ^= 1 << bit
    (folder / CURRENT).write_bytes(raw)
    try:
        loaded = load_checkpoint(folder, RUN)
    except CheckpointError:
        return
    # Only padding may differ without notice.
    assert loaded.meta == {"step": 5}
    np.testing.assert_array_equal(loaded.arrays["w"], np.full((2, 3), 5, np.float32))


def test_other_files_are_not_taken_for_checkpoints(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3)}, tmp_path / CURRENT)
    with pytest.raises(CheckpointError, match="has no checksum"):
        load_checkpoint(tmp_path, RUN)


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_FORMAT", "fewshot_course.checkpoint/99")
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="checkpoint/99"):
        load_checkpoint(tmp_path, RUN)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_full_disk(tmp_path, monkeypatch, call):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        monkeypatch.setattr(os, "fdopen", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match="The disk is full") as error:
        save(tmp_path, 3)
    monkeypatch.undo()
    assert str(tmp_path) in str(error.value)
    assert load_checkpoint(tmp_path, RUN).meta == {"step": 2}
    assert sorted(os.listdir(tmp_path)) == [PREVIOUS, CURRENT]
    save(tmp_path, 3)
    assert load_checkpoint(tmp_path, RUN).meta == {"step": 3}


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for action in (save, lambda folder, step: check_folder(folder)):
        with pytest.raises(CheckpointError, match="Choose a folder that can be written to") as e:
            action(tmp_path / "file" / "below", 1)
        assert "file/below" in str(e.value)


def test_check_folder_leaves_nothing(tmp_path):
    assert list(check_folder(tmp_path / "a" / "b").iterdir()) == []


def test_many_workers_may_check_one_folder_at_the_same_time(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(check_folder, [tmp_path] * 400)) == {tmp_path}
    assert list(tmp_path.iterdir()) == []


def test_bad_arrays_and_meta(tmp_path):
    with pytest.raises(TypeError, match=r"arrays\['w'\].*object"):
        save_checkpoint(tmp_path, {"w": np.array([{}])}, {}, fingerprint=RUN)
    with pytest.raises(TypeError, match=r"arrays\['w'\].*list"):
        save_checkpoint(tmp_path, {"w": [1.0]}, {}, fingerprint=RUN)
    with pytest.raises(TypeError, match="meta must be JSON-able"):
        save_checkpoint(tmp_path, {}, {"w": np.zeros(2)}, fingerprint=RUN)
    assert os.listdir(tmp_path) == []


WRITER = """
import sys
import numpy as np
from fewshot_course.checkpoints import load_checkpoint, save_checkpoint

folder, run = sys.argv[1], {"run": 1}
found = load_checkpoint(folder, run)
step = found.meta["step"] if found else 0
print("ready", flush=True)
while True:
    step += 1
    arrays = {"w": np.full(100_000, step, np.float64), "v": np.full(7, step)}
    save_checkpoint(folder, arrays, {"step": step}, fingerprint=run)
    print(step, flush=True)
"""


def test_fifty_kills_at_random_points(tmp_path):
    rng = np.random.default_rng(4)
    last, advanced = 0, 0
    for _ in range(50):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        reported = [int(line) for line in process.communicate()[0].split()]
        found = load_checkpoint(tmp_path, {"run": 1})
        step = found.meta["step"] if found else 0
        # Whole, of one step, and nothing lost that had been reported as saved.
        assert step >= max(reported, default=last)
        assert all((array == step).all() for array in (found.arrays if found else {}).values())
        advanced += step > last
        last = step
    assert advanced >= 25
    assert last > 50


def test_a_kill_at_every_system_call(tmp_path, monkeypatch):
    """Stop the writer before each of its steps on the disk in turn."""

    class Killed(BaseException):
        pass

    for stop in itertools.count():
        folder = tmp_path / str(stop)
        save(folder, 1)
        save(folder, 2)
        calls = itertools.count()

        def counted(function, calls=calls, stop=stop):
            def wrapper(*args, **kwargs):
                if next(calls) == stop:
                    raise Killed
                return function(*args, **kwargs)

            return wrapper

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", counted(os.fsync))
            patch.setattr(os, "replace", counted(os.replace))
            patch.setattr(tempfile, "mkstemp", counted(tempfile.mkstemp))
            try:
                save(folder, 3)
                done = True
            except Killed:
                done = False
        assert load_checkpoint(folder, RUN).meta["step"] == (3 if done or stop == 4 else 2)
        if done:
            break
    assert stop == 5  # the temporary file, fsync, two renames, fsync of the folder


# ---------------------------------------------------------------------------- two at a time


SAVES = """
import sys, warnings
import numpy as np
from fewshot_course.checkpoints import load_checkpoint, save_checkpoint

warnings.simplefilter("error")
for step in range(int(sys.argv[2])):
    arrays = {"w": np.full(10_000, float(step))}
    save_checkpoint(sys.argv[1], arrays, {"step": step}, fingerprint={"run": 1})
    load_checkpoint(sys.argv[1], {"run": 1})
"""


def test_two_writers_of_one_folder_do_not_disturb_each_other(tmp_path):
    command = [sys.executable, "-c", SAVES, str(tmp_path / "c"), "100"]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    said = [writer.communicate(timeout=120)[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], said
    left = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert left == sorted([CURRENT, PREVIOUS])
    assert load_checkpoint(tmp_path / "c", {"run": 1}).meta["step"] == 99


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    save(tmp_path, 1)
    (tmp_path / f"{CURRENT}.abc.tmp").write_bytes(b"half")
    save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CURRENT, PREVIOUS])


def test_only_one_damaged_file_is_kept(tmp_path):
    for step in range(1, 5):
        save(tmp_path, step).write_bytes(b"damaged")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [CURRENT, "checkpoint.damaged.safetensors"]
    )


HOLDS = """
import sys
from fewshot_course.checkpoints import lock_folder

with lock_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_belongs_to_one_run_until_that_ends_or_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    wanted = pytest.raises(CheckpointError, match="Another run is training with checkpoints in")
    with wanted, lock_folder(tmp_path):
        raise AssertionError("two runs have the folder")
    holder.kill()
    holder.communicate()
    with lock_folder(tmp_path), lock_folder(tmp_path):  # the thread that has it may take it again
        save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == [CURRENT]


def test_a_folder_that_went_while_one_waited_is_made_again(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    command = [sys.executable, "-c", HOLDS, str(folder)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(save, folder, 1)
        time.sleep(0.2)
        folder.rmdir()
        holder.communicate(b"")
        waiting.result(timeout=30)
    assert load_checkpoint(folder, RUN).meta == {"step": 1}
