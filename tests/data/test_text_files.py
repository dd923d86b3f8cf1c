import numpy as np
import pytest

from fewshot_course.data import load_csv


def write(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_becomes_a_data_set(tmp_path):
    path = write(
        tmp_path, 'text,label\n"Hello, you",greet\nBye 再见,part\n\n"He said ""hi""",greet\n'
    )
    data = load_csv(path)
    assert data.X == ["Hello, you", "Bye 再见", 'He said "hi"']
    assert data.class_names == ("greet", "part")
    assert data.y.tolist() == [0, 1, 0]
    assert data.y.dtype == np.int64
    assert (data.name, data.info.n, data.info.n_classes) == ("mine", 3, 2)
    assert load_csv(str(path)).X == data.X


@pytest.mark.parametrize(
    "content",
    [
        "label,id,text\nb,1,x\na,2,y\n",
        "\ufefftext,label\nx,b\ny,a\n",
        "text,label\r\nx,b\r\ny,a\r\n",
        "text,label\nx,b\ny,a",
        " text , label \n x , b\ny,a\n",
    ],
)
def test_column_order_marks_line_ends_and_spaces_do_not_matter(tmp_path, content):
    data = load_csv(write(tmp_path, content))
    assert (data.X, data.y.tolist(), data.class_names) == (["x", "y"], [1, 0], ("a", "b"))


def test_whole_numbers_are_ordered_as_numbers(tmp_path):
    assert load_csv(write(tmp_path, "text,label\nx,10\ny,9\n")).class_names == ("9", "10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nx,a\n,b\ny,\n", r"mine\.csv: line 3 has no text, line 4 has no label"),
        ('text,label\n"two\nlines",a\nx,a,b\n', "line 4 has 3 columns, expected 2"),
        ('text,label\nx,a\n"never closed,b\ny,a\n', "row that begins in line 3 is broken"),
        ("text,label\n" + ",a\n" * 9, "and 4 more"),
        ("review,stars\nx,5\n", "'text' and 'label'; line 1 holds 'review', 'stars'"),
        ("text,label\n", "no rows"),
        ("", "is empty"),
        (b"text,label\nx,a\nna\xefve,b\n", "not UTF-8: line 3 holds the byte 0xef"),
        ("text,label\nx,a\n".encode("utf-16"), "not UTF-8: line 1"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load_csv(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        load_csv(tmp_path / "absent.csv")
