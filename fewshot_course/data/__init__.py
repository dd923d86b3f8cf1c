"""What is learned from: data sets, splits and episodes; NumPy only."""

from fewshot_course.data._files import DataError, cached, clear_cache
from fewshot_course.data.episodes import Episodes, EpisodeSampler
from fewshot_course.data.images import frame_digits, resize_images, rotate_images, vary_digits
from fewshot_course.data.omniglot import character_parts, quarter_turns
from fewshot_course.data.registry import DATASETS, Dataset, DatasetInfo, load_dataset, where
from fewshot_course.data.sinusoids import SinusoidSampler
from fewshot_course.data.splits import BatchStream, Split, few_shot_split, mask_labels
from fewshot_course.data.text_files import load_csv

__all__ = [
    "DATASETS",
    "BatchStream",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "EpisodeSampler",
    "Episodes",
    "SinusoidSampler",
    "Split",
    "cached",
    "character_parts",
    "clear_cache",
    "few_shot_split",
    "frame_digits",
    "load_csv",
    "load_dataset",
    "mask_labels",
    "quarter_turns",
    "resize_images",
    "rotate_images",
    "vary_digits",
    "where",
]
