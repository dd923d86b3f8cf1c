import http.server
import threading

import pytest

from fewshot_course.data._files import CACHE_VARIABLE, DATA_VARIABLE, locate
from fewshot_course.data.registry import _REGISTRY


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, session_cache):
    """No test reads or writes the cache of the person who runs it."""
    monkeypatch.setenv(CACHE_VARIABLE, str(session_cache))


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """An empty cache and no data folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    return folder


@pytest.fixture
def needs():
    """Skip, with the reason, where the files of a data set are not at hand."""

    def check(name):
        missing = [file.path for file in _REGISTRY[name].files if locate(file) is None]
        if missing:
            pytest.skip(f"{DATA_VARIABLE} has no {', '.join(missing)}")

    return check


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine: fill ``files``, take ``address``, read ``requests``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            running.requests.append(self.path)
            content = running.files.get(self.path.lstrip("/"))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.files, running.requests = {}, []
    running.address = f"http://127.0.0.1:{running.server_port}/"
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
