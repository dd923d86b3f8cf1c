"""The texts written for the course: complete, fixed, free of duplicates and of templates."""

import hashlib
import re
import unicodedata
from collections import Counter
from importlib import resources

import numpy as np
import pytest
from scipy import sparse

from fewshot_course.data import load_dataset, where
from fewshot_course.data.texts import INTENTS, SPLITS, read_rows

SHA256 = {
    "tickets.csv": "ee2013dc5023570aa2b52b3d0031f35f745173dd88af23b68109de1e93715b3a",
    "reviews.csv": "04fd8ac1c5752b9d324279bb0cb35b1a3c8f543c68a5981b545832470053b6dd",
}
WORDS = {"tickets.csv": (3, 45), "reviews.csv": (3, 50)}
NAMES = ["tickets", "reviews_kitchen", "reviews_films", "reviews"]
FILES = list(SHA256)

# Two messages that say the same in nearly the same words share most of both sets: changing one
# word in ten leaves a word Jaccard of 0.82, and one letter in a text of 60 a 5-gram Jaccard of
# 0.84.  Two people who ask for the same thing in four or five common words ("how do I get ...")
# reach half of the words, with few 5-grams.  So the threshold for words is above one half, and
# the one for 5-grams, which respects order, lower.
SAME_WORDS = 0.6
SAME_CHARACTERS = 0.4


def words(text):
    return re.findall(r"[^\W_]+", text.casefold().replace("'", ""))


def characters(text, k=5):
    line = " ".join(words(text))
    return {line[start : start + k] for start in range(max(1, len(line) - k + 1))}


def jaccard(sets):
    """Return the share that each pair of sets has in common, (n, n)."""
    place = {item: index for index, item in enumerate(sorted(set().union(*sets)))}
    rows = np.repeat(np.arange(len(sets)), [len(items) for items in sets])
    columns = [place[item] for items in sets for item in items]
    held = sparse.csr_array((np.ones(len(rows)), (rows, columns)), (len(sets), len(place)))
    both = (held @ held.T).toarray()
    sizes = both.diagonal()
    return both / (sizes[:, None] + sizes - both)


def near_duplicates(texts):
    """Return the pairs of texts that share too many words or too many character 5-grams."""
    same = jaccard([set(words(text)) for text in texts]) >= SAME_WORDS
    same |= jaccard([characters(text) for text in texts]) >= SAME_CHARACTERS
    return [(texts[i], texts[j]) for i, j in np.argwhere(np.triu(same, 1))]


def shared_runs(texts, n=6):
    """Return, for each run of n words, in how many texts it occurs."""
    counts = Counter()
    for text in texts:
        line = words(text)
        counts.update({tuple(line[start : start + n]) for start in range(len(line) - n + 1)})
    return counts


@pytest.fixture(params=FILES)
def file(request):
    return request.param


def test_the_file_is_the_one_that_results_were_found_on(file):
    content = (resources.files("fewshot_course") / "data" / "texts" / file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256[file]


def test_texts_are_plain_and_of_the_promised_length(file):
    shortest, longest = WORDS[file]
    for row in read_rows(file):
        text = row["text"]
        assert text == text.strip()
        assert shortest <= len(text.split()) <= longest, text
        assert not re.search(r"<\w|</|&\w+;|https?:|\S@\S|[{}\[\]_|`]|  ", text), text
        assert not any(unicodedata.category(letter).startswith("C") for letter in text), text


def test_no_two_texts_are_nearly_the_same(file):
    assert near_duplicates([row["text"] for row in read_rows(file)]) == []


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (str.upper, "every letter"),
        (lambda text: text.replace("my", "the"), "all words but one"),
        (lambda text: " ".join(text.split()[1:]), "all words but the first"),
        (lambda text: " ".join(reversed(text.split())), "the words, not their order"),
        (lambda text: text.replace("parcel", "parcels").replace("three", "thre"), "the letters"),
    ],
)
def test_a_near_duplicate_is_refused(change, kept):
    original = "Hello, I have been waiting for my parcel for three weeks now, where is it?"
    others = ["Where do I find the bill?", "The lamp I got is broken."]
    assert near_duplicates([*others, original]) == []
    assert near_duplicates([*others, original, change(original)]), kept


def test_no_template_was_filled_in(file):
    """A run of six words that several texts share would be a pattern with slots."""
    texts = [row["text"] for row in read_rows(file)]
    assert [run for run, count in shared_runs(texts).items() if count > 2] == []
    openings = Counter(tuple(words(text)[:3]) for text in texts)
    assert max(openings.values()) <= len(texts) // 80  # 10 of 810


@pytest.mark.parametrize("pattern", ["tell me when I will get the {}", "when will the {} be here"])
def test_a_template_is_found(pattern):
    """With a long run around the slot by that run, else as near-duplicates."""
    filled = [pattern.format(thing) for thing in ("red lamp", "book", "garden chairs")]
    assert max(shared_runs(filled).values()) == 3 or near_duplicates(filled)


def test_tickets_have_the_promised_numbers_of_each_intent_in_each_split():
    for split, count in zip(SPLITS, (16, 8, 30), strict=True):
        data = load_dataset("tickets", split)
        assert data.class_names == INTENTS
        assert np.bincount(data.y).tolist() == [count] * len(INTENTS)


def test_the_split_of_tickets_was_drawn_and_not_chosen():
    """In each intent the order of the texts' hashes decides, which nobody can steer."""
    by_intent = {}
    for row in read_rows("tickets.csv"):
        by_intent.setdefault(row["label"], []).append(row)
    for rows in by_intent.values():
        rows.sort(key=lambda row: hashlib.sha256(row["text"].encode()).hexdigest())
        drawn = [row["split"] for row in rows]
        assert drawn == ["train"] * 16 + ["validation"] * 8 + ["test"] * 30


def test_the_first_rows_of_tickets_are_of_many_intents():
    assert len(set(load_dataset("tickets", "train").y[:60].tolist())) > 10


def test_reviews_have_the_promised_numbers_in_each_split():
    for split, count in zip(SPLITS, (64, 36, 110), strict=True):
        for name in ("reviews_kitchen", "reviews_films"):
            data = load_dataset(name, split)
            assert data.class_names == ("negative", "positive")
            assert np.bincount(data.y).tolist() == [count, count]


def test_both_domains_of_the_reviews_follow_each_other():
    for split in SPLITS:
        both, *parts = (load_dataset(name, split) for name in NAMES[3:] + NAMES[1:3])
        assert [text for part in parts for text in part.X] == both.X
        assert np.array_equal(both.y, np.concatenate([part.y for part in parts]))


def test_class_0_of_the_reviews_is_negative():
    labels = {row["text"]: row["label"] for row in read_rows("reviews.csv")}
    data = load_dataset("reviews")
    assert [labels[text] for text in data.X] == [("negative", "positive")[y] for y in data.y]


@pytest.mark.parametrize("name", NAMES)
def test_all_is_the_splits_one_after_the_other(name):
    whole = load_dataset(name)
    parts = [load_dataset(name, split) for split in SPLITS]
    assert [text for part in parts for text in part.X] == whole.X
    assert np.array_equal(whole.y, np.concatenate([part.y for part in parts]))
    assert len({text.casefold() for text in whole.X}) == whole.info.n  # so splits are disjoint
    assert where(name) == "package fewshot_course"
