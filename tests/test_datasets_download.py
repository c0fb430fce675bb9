"""Data sets from a folder of local copies, from the cache, and from a server on this machine."""

import gc
import gzip
import hashlib
import http.server
import ntpath
import posixpath
import socket
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel import datasets
from mfkernel.data.files import download
from tests.files import mutated, zip_of
from tests.helpers import examples
from tests.processes import run_in_threads, run_python

pooch = pytest.importorskip("pooch")

MEMBER = "ml-100k/u.data"
RATINGS = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t377\t1\t878887116\n"
ARCHIVE = zip_of({"ml-100k/README": "read me", MEMBER: RATINGS, "ml-100k/u1.base": "1\t1\t1\t881250949\n"})


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Allow connections to this machine only, without proxies and without local copies."""
    connect = socket.socket.connect

    def connect_here(self, address):
        if address[0] != "127.0.0.1":
            raise OSError(f"a test wants to connect to {address}")
        return connect(self, address)

    def look_up(host, *arguments, **options):
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(f"a test wants to look up {host}")
        return look_up.original(host, *arguments, **options)

    look_up.original = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("MFKERNEL_DATA", raising=False)


class Server:
    """Serves one archive under any name but /missing; ``requests`` are the paths asked for."""

    def __init__(self, archive, keep=None):
        self.requests = requests = []
        length = len(archive)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                if "missing" in self.path:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(archive[:keep])

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve(monkeypatch):
    """Return a function that serves an archive as ``100k``; ``expected`` is the one that has the checksum."""

    @contextmanager
    def serving(archive=ARCHIVE, expected=None, keep=None, server="files"):
        checksum = hashlib.sha256(archive if expected is None else expected).hexdigest()
        monkeypatch.setitem(datasets.MOVIELENS, "100k", (checksum, MEMBER))
        with Server(archive, keep) as running:
            monkeypatch.setattr(datasets, "SERVER", f"{running.url}/{server}")
            yield running

    return serving


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def check_ratings(R):
    np.testing.assert_array_equal(R.user_ids, [186, 196])
    np.testing.assert_array_equal(R.item_ids, [242, 302, 377])
    np.testing.assert_array_equal(R.values, [3, 3, 1])


def test_movielens__is_downloaded_once_and_says_its_conditions_once(serve, tmp_path, capsys):
    cache = tmp_path / "new" / "cache"
    with serve() as server:
        check_ratings(mf.datasets.movielens("100k", cache=cache))
        assert server.requests == ["/files/movielens/ml-100k.zip"]
        said = capsys.readouterr()
        assert said.out == ""
        for words in (f"{server.url}/files/movielens/ml-100k.zip", "research only", "Harper and Konstan"):
            assert said.err.count(words) == 1, words
    check_ratings(mf.datasets.movielens("100k", cache=str(cache)))  # the server is down
    assert capsys.readouterr() == ("", "")
    checksum = hashlib.sha256(ARCHIVE).hexdigest()
    folder = f"ml-100k-{checksum[:8]}"
    assert everything_in(cache) == [folder, f"{folder}/u.data"]
    assert (cache / folder / "u.data").read_text() == RATINGS


def test_movielens__caches_where_pooch_says(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    with serve():
        check_ratings(mf.datasets.movielens())
    assert len(list(tmp_path.glob("mfkernel/ml-100k-*/u.data"))) == 1


def test_movielens__another_checksum_is_another_edition(serve, tmp_path):
    with serve():
        mf.datasets.movielens("100k", cache=tmp_path)
    with serve(zip_of({MEMBER: "1\t2\t5\t881250949\n"})):
        assert mf.datasets.movielens("100k", cache=tmp_path).nnz == 1
    with serve() as server:
        check_ratings(mf.datasets.movielens("100k", cache=tmp_path))
        assert server.requests == []


BAD_ARCHIVES = {  # archive, the one with the expected checksum, words of the message
    "another": (zip_of({MEMBER: RATINGS + " "}), ARCHIVE, "SHA-256"),
    "truncated": (ARCHIVE[:-30], ARCHIVE, "SHA-256"),
    "empty": (b"", ARCHIVE, "SHA-256"),
    "a web page": (b"<html>", None, "damaged"),
    "zip slip": (zip_of({MEMBER: RATINGS, "../evil": "x"}), None, "'../evil'"),
    "zip slip below": (zip_of({MEMBER: RATINGS, "ml-100k/../../evil": "x"}), None, "evil"),
    "zip slip of Windows": (zip_of({MEMBER: RATINGS, "..\\evil": "x"}), None, "evil"),
    "a drive": (zip_of({MEMBER: RATINGS, "C:\\evil": "x"}), None, "evil"),
    "absolute": (zip_of({MEMBER: RATINGS, "/tmp/evil": "x"}), None, "evil"),
    "missing member": (zip_of({"ml-100k/README": "read me"}), None, f"have the file {MEMBER}"),
}


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_movielens__refuses_bad_archives_and_keeps_nothing(kind, serve, tmp_path):
    archive, expected, words = BAD_ARCHIVES[kind]
    cache = tmp_path / "cache"
    with (
        serve(archive, expected) as server,
        pytest.raises(ValueError, match=words.replace("\\", ".")) as raised,
    ):
        mf.datasets.movielens("100k", cache=cache)
    assert "ml-100k.zip" in str(raised.value)
    if expected is not None:
        for bytes_ in (archive, expected):
            assert hashlib.sha256(bytes_).hexdigest() in str(raised.value)
    assert everything_in(tmp_path) == ["cache"]
    with serve() as server:
        check_ratings(mf.datasets.movielens("100k", cache=cache))
        assert len(server.requests) == 1


@examples(300)
@given(
    parts=st.lists(st.sampled_from(["a", "C:", "..", ".", "", " ", "...", "é"]), max_size=5), data=st.data()
)
def test_download__names_that_pass_lead_below_the_folder(parts, data):
    name = "".join(part + data.draw(st.sampled_from(["", "/", "\\", "\\\\"])) for part in parts)
    if not download._leads_outside(name):
        for system, root in ((posixpath, "/root/folder"), (ntpath, "D:\\root\\folder")):
            path = system.normpath(system.join(root, name))
            assert path == root or path.startswith(root + system.sep)


@examples(300)
@given(archive=mutated([ARCHIVE, zip_of({MEMBER: RATINGS}, method=0)]))
def test_download__damaged_archives_give_the_ratings_or_an_error_that_names_them(archive):
    source = datasets._movielens_source("100k")
    with tempfile.TemporaryDirectory() as folder:
        packed, target = Path(folder, "archive"), Path(folder, "unpacked")
        packed.write_bytes(archive)
        try:
            download._unpack(source, packed, target)
            found = target.read_text()
        except ValueError as error:
            found = str(error)[:12]
        assert found in (RATINGS, "ml-100k.zip ")
        assert set(everything_in(Path(folder))) <= {"archive", "unpacked"}


def test_movielens__checks_the_bytes_of_the_file(serve, tmp_path):
    """A stored member whose bytes do not have the checksum of the archive's directory."""
    stored = zip_of({MEMBER: RATINGS}, method=0)
    with serve(stored.replace(b"881250949", b"881250940")), pytest.raises(ValueError, match="damaged"):
        mf.datasets.movielens("100k", cache=tmp_path)
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "words"), [({"server": "missing"}, "404"), ({"keep": 100}, "bytes"), ({"keep": 0}, "bytes")]
)
def test_movielens__says_what_to_do_without_the_file(options, words, serve, tmp_path):
    with serve(**options) as server, pytest.raises(ConnectionError, match=words) as raised:
        mf.datasets.movielens("100k", cache=tmp_path)
    message = str(raised.value)
    assert message.startswith(f"cannot download {server.url}/")
    assert str(Path("ml-100k", "u.data")) in message
    assert "MFKERNEL_DATA" in message
    assert everything_in(tmp_path) == []
    gc.collect()  # no socket is open


def test_movielens__says_what_to_do_without_a_network(tmp_path):
    with pytest.raises(ConnectionError, match="a test wants to look up") as raised:
        mf.datasets.movielens("1m", cache=tmp_path)
    assert "https://files.grouplens.org/datasets/movielens/ml-1m.zip" in str(raised.value)
    assert everything_in(tmp_path) == []


def test_movielens__names_a_cache_that_cannot_be_written(serve, tmp_path):
    (tmp_path / "file").write_text("")
    with serve(), pytest.raises(OSError, match="file"):
        mf.datasets.movielens("100k", cache=tmp_path / "file" / "cache")
    with pytest.raises(TypeError, match="cache must be the path of a folder, got 5"):
        mf.datasets.movielens("100k", cache=5)


def test_movielens__needs_pooch_for_what_is_not_local(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"needs pooch: pip install 'mfkernel\[datasets\]'"):
        mf.datasets.movielens("100k", cache=tmp_path)
    monkeypatch.setenv("MFKERNEL_DATA", str(tmp_path))
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / MEMBER).write_text(RATINGS)
    check_ratings(mf.datasets.movielens("100k"))


def test_movielens__is_imported_only_when_it_is_used():
    code = "import sys, mfkernel; assert not {'pooch', 'requests'} & set(sys.modules)"
    assert run_python(code).returncode == 0


@pytest.mark.parametrize("name", ["100K", "ml-100k", "", None, 100])
def test_movielens__names_are_listed(name):
    with pytest.raises(ValueError, match="name must be one of '100k', '1m', .*'latest-small', got"):
        mf.datasets.movielens(name)


def test_movielens__may_be_downloaded_by_several_at_once(serve, tmp_path):
    with serve() as server:
        for R in run_in_threads(lambda _: mf.datasets.movielens("100k", cache=tmp_path), range(4)):
            check_ratings(R)
        assert 1 <= len(server.requests) <= 4
    assert len(everything_in(tmp_path)) == 2


def test_movielens__may_be_downloaded_by_several_processes_at_once(serve, tmp_path):
    code = (
        "import sys; from mfkernel import datasets; url, checksum, member, cache = sys.argv[1:];"
        "datasets.SERVER = url; datasets.MOVIELENS['100k'] = checksum, member;"
        "print(datasets.movielens('100k', cache=cache))"
    )
    with serve() as server:
        words = server.url, hashlib.sha256(ARCHIVE).hexdigest(), MEMBER, tmp_path
        for done in run_in_threads(lambda _: run_python(code, *words), range(2)):
            assert done.stdout == "Ratings(2 users × 3 items, 3 ratings, float32)\n", done.stderr
    assert len(everything_in(tmp_path)) == 2


LOCAL_COPIES = [
    ("100k", "ml-100k/u.data", RATINGS),
    ("100k", "ml-100k/u.data.gz", RATINGS),
    ("1m", "ml-1m/ratings.dat", RATINGS.replace("\t", "::")),
    ("1m", "ml-1m/ratings.csv.gz", "userId,movieId,rating,time\n" + RATINGS.replace("\t", ",")),
    ("10m", "ml-10M100K/ratings.dat", RATINGS.replace("\t", "::")),
    ("10m", "ml-10m/ratings.dat.gz", RATINGS.replace("\t", "::")),
    *(
        (name, f"ml-{name}/ratings.csv", "userId,movieId,rating,timestamp\n" + RATINGS.replace("\t", ","))
        for name in ("20m", "25m", "32m", "latest-small")
    ),
]


@pytest.mark.parametrize(("name", "file", "text"), LOCAL_COPIES)
def test_movielens__local_copies_come_first(name, file, text, tmp_path, monkeypatch, capsys):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode()) if file.endswith(".gz") else text.encode())
    monkeypatch.setenv("MFKERNEL_DATA", str(tmp_path))
    check_ratings(mf.datasets.movielens(name, cache=tmp_path / "cache"))
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "cache").exists()


def test_movielens__an_incomplete_folder_of_copies_does_no_harm(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("MFKERNEL_DATA", str(tmp_path / "copies"))
    with serve():
        check_ratings(mf.datasets.movielens("100k", cache=tmp_path / "cache"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "shape", "nnz"),
    [("100k", "ml-100k", (943, 1682), 100_000), ("1m", "ml-1m", (6040, 3706), 1_000_209)],
)
def test_movielens__reads_real_copies(name, folder, shape, nnz, data_folder, monkeypatch):
    if not (data_folder / folder).is_dir():
        pytest.skip(f"MFKERNEL_DATA has no {folder}")
    monkeypatch.setenv("MFKERNEL_DATA", str(data_folder))
    R = mf.datasets.movielens(name)
    assert (R.shape, R.nnz) == (shape, nnz)
    assert set(np.unique(R.values)) == {1, 2, 3, 4, 5}


def test_movielens__has_a_checksum_for_each_archive():
    for checksum, member in datasets.MOVIELENS.values():
        assert len(bytes.fromhex(checksum)) == 32
        assert member.startswith("ml-")
    assert len(bytes.fromhex(datasets.LASTFM.sha256)) == 32


LISTENED = "userID\tartistID\tweight\r\n2\t51\t13883\r\n2\t52\t11690\r\n7\t51\t1\r\n"


def test_lastfm__is_downloaded_and_found(tmp_path, monkeypatch, capsys):
    archive = zip_of({"readme.txt": "read me", "user_artists.dat": LISTENED})
    with Server(archive) as server:
        changes = {"url": f"{server.url}/lastfm.zip", "sha256": hashlib.sha256(archive).hexdigest()}
        monkeypatch.setattr(datasets, "LASTFM", datasets.LASTFM._replace(**changes))
        R = mf.datasets.lastfm(cache=tmp_path)
    np.testing.assert_array_equal(R.to_scipy().toarray(), [[13883, 11690], [1, 0]])
    np.testing.assert_array_equal(R.item_ids, [51, 52])
    assert "non-commercial" in capsys.readouterr().err
    place = tmp_path / "hetrec2011-lastfm-2k" / "user_artists.dat"
    place.parent.mkdir()
    place.write_text(LISTENED.replace("13883", "5"))
    monkeypatch.setenv("MFKERNEL_DATA", str(tmp_path))
    assert mf.datasets.lastfm(cache=tmp_path).values[0] == 5


def test_download__on_windows_the_first_file_stays(tmp_path, monkeypatch):
    """Windows cannot replace a file that another process reads."""
    target = tmp_path / "target"

    def refuse(self, _):
        raise PermissionError("in use")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        download._move(tmp_path / "new", target)
    target.write_text("old")
    download._move(tmp_path / "new", target)
    assert target.read_text() == "old"
