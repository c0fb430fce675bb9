"""Models in file objects, and models whose arrays are mapped from a file."""

import io
import os
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.model import archive
from tests.helpers import assert_same, examples, state_of
from tests.processes import run_python

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="maps of memory are in /proc on Linux")
MAPPED = ("P", "Q", "known_users", "known_items")


def ratings(m=50, n=40, **options):
    return mf.datasets.synthetic(m, n, 600, rng=1, **options)


def fit(method="sgd", k=5, **options):
    return mf.factorize(ratings(), k, method, rng=0, epochs=2, n_threads=1, **options)


class Unseekable(io.RawIOBase):
    """A stream that reads and writes a few bytes at a time and cannot seek."""

    def __init__(self, data=b"", most=1000):
        self.content, self.most, self.place = bytearray(data), most, 0

    def readable(self):
        return True

    def writable(self):
        return True

    def readinto(self, buffer):
        size = min(len(buffer), self.most, len(self.content) - self.place)
        buffer[:size] = self.content[self.place : self.place + size]
        self.place += size
        return size

    def write(self, data):
        self.content += data[: self.most]
        return min(self.most, len(data))


class Plain:
    """An object that has ``read`` and ``write`` and nothing else."""

    def __init__(self, data=b""):
        self.file = io.BytesIO(data)

    def read(self, size):
        return self.file.read(size)

    def write(self, data):
        self.file.write(data)


def content_of(stream):
    if isinstance(stream, Plain):
        stream = stream.file
    return bytes(stream.content) if isinstance(stream, Unseekable) else stream.getvalue()


# file objects


@examples(60)
@given(
    data=st.data(),
    dtype=st.sampled_from([np.float32, np.float64]),
    shape=st.tuples(st.integers(0, 5), st.integers(1, 9), st.integers(0, 5)),
    ids=st.sampled_from([None, "text", "numbers"]),
    sink=st.sampled_from([io.BytesIO, Unseekable, Plain]),
    source=st.sampled_from([io.BytesIO, Unseekable, Plain]),
)
def test_save_and_load__take_any_file_object(data, dtype, shape, ids, sink, source):
    m, k, n = shape
    numbers = st.floats(-10, 10, width=32)
    P, Q = (
        np.array(data.draw(st.lists(numbers, min_size=a * b, max_size=a * b)), dtype).reshape(a, b)
        for a, b in ((m, k), (k, n))
    )
    names = {} if ids is None else {"user_ids": np.arange(m) + 3, "item_ids": [f"é{j}" for j in range(n)]}
    model = mf.Factors(P, Q, mean=0.5, **names)
    stream = sink()
    model.save(stream)
    saved = content_of(stream)
    assert state_of(mf.load(source(saved))) == state_of(model)
    with np.load(io.BytesIO(saved)) as arrays:
        np.testing.assert_array_equal(arrays["Q"], Q)
    assert zipfile.ZipFile(io.BytesIO(saved)).testzip() is None


@pytest.mark.parametrize("method", ["sgd", "als", "implicit", "bayesian"])
def test_save_and_load__keep_a_trained_model_in_memory(method):
    model, stream = fit(method), io.BytesIO()
    model.save(stream)
    assert not stream.closed
    assert state_of(mf.load(stream)) == state_of(model)


def test_save_and_load__take_the_files_of_fsspec(tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    model = fit()
    for url in ("memory://models/one.npz", f"file://{tmp_path / 'one.npz'}"):
        with fsspec.open(url, "wb") as file:
            model.save(file)
        with fsspec.open(url, "rb") as file:
            assert state_of(mf.load(file)) == state_of(model)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_load__reads_a_pipe():
    code = "import sys, mfkernel as mf; print(mf.load(sys.stdin.buffer).mean)"
    stream = io.BytesIO()
    mf.Factors(np.ones((3, 2)), np.ones((2, 4)), mean=2.5).save(stream)
    run = run_python(code, input=stream.getvalue(), encoding=None)
    assert (run.stdout.strip(), run.stderr) == (b"2.5", b"")


def test_save__begins_where_the_file_object_is():
    stream = io.BytesIO()
    stream.write(b"a line of its own\n")
    model = fit()
    model.save(stream)
    assert stream.getvalue().startswith(b"a line of its own\nPK")
    assert state_of(mf.load(stream)) == state_of(model)


def test_save_and_load__refuse_what_is_neither_path_nor_binary_file(tmp_path):
    for call, method in ((fit().save, "write"), (mf.load, "read")):
        for wrong in (5, None, [1.0]):
            with pytest.raises(TypeError, match=rf"a path or a binary file object with {method}, got"):
                call(wrong)
        with pytest.raises(TypeError, match="opened in binary mode, got one opened as text"):
            call(io.StringIO())
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        mf.load(closed)
    with pytest.raises(ValueError, match="closed file"):
        fit().save(closed)


def test_load__names_a_file_object_that_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="^the file is not a model saved by mfkernel"):
        mf.load(io.BytesIO(b"something else"))
    (tmp_path / "other").write_bytes(b"something else")
    with (tmp_path / "other").open("rb") as file, pytest.raises(ValueError, match=r"other is not a model"):
        mf.load(file)


def test_load__bounds_the_memory_of_a_stream(monkeypatch):
    stream = io.BytesIO()
    fit().save(stream)
    monkeypatch.setattr("mfkernel.model.archive.available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match="the file does not fit in memory"):
        mf.load(Unseekable(stream.getvalue()))
    with pytest.raises(MemoryError, match="the file does not fit in memory"):
        mf.load(stream)


def test_save__passes_on_what_the_file_object_raises():
    class Full(Plain):
        def write(self, data):
            raise OSError(28, "No space left on device")

    class Busy(io.RawIOBase):
        def write(self, data):
            return None

    with pytest.raises(OSError, match="No space left"):
        fit().save(Full())
    with pytest.raises(BlockingIOError, match="does not take all bytes"):
        fit().save(Busy())


# arrays that are mapped


def owners(array):
    """Yield an array and all that it takes its memory from."""
    while array is not None:
        yield array
        array = (
            array.obj
            if isinstance(array, memoryview)
            else getattr(array, "base", getattr(array, "_owner", None))
        )


def is_mapped(array):
    return any(isinstance(owner, np.memmap) for owner in owners(array))


@pytest.mark.parametrize("method", ["sgd", "als", "implicit", "bayesian"])
@pytest.mark.parametrize("k", [5, 8])
def test_mmap__gives_the_same_model(tmp_path, method, k):
    options = {"biases": True} if method in ("sgd", "als") else {}
    model = fit(method, k, **options)
    model.save(tmp_path / "model.npz")
    mapped = mf.load(tmp_path / "model.npz", mmap=True)
    assert state_of(mapped) == state_of(model)
    names = MAPPED if method == "implicit" else (*MAPPED, "user_bias", "item_bias")
    for name in names:
        array = getattr(mapped, name)
        assert is_mapped(array), name
        assert array.ctypes.data % archive.ALIGNMENT == 0, name
        assert not array.flags.writeable
    assert is_mapped(mapped.ratings.values)
    assert not is_mapped(mapped.ratings.indices)  # kernels trust them
    assert not is_mapped(mf.load(tmp_path / "model.npz").P)
    users, items = np.arange(50)[:, None], np.arange(40)
    assert mapped.predict(users, items).tobytes() == model.predict(users, items).tobytes()
    for asked in ([3, 4], {2: 1.0, 7: 3.0}):
        found, expected = mapped.recommend(asked, 5), model.recommend(asked, 5)
        assert found.items.tolist() == expected.items.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()
    with pytest.raises(ValueError, match="WRITEABLE|writeable"):
        mapped.P.flags.writeable = True
    new = ([0, 50], [1, 2], [2.0, 3.0])
    assert_same(mapped.partial_fit(new), model.partial_fit(new))
    assert not is_mapped(mapped.P)


def test_mmap__takes_ids_weights_and_a_model_without_ratings(tmp_path):
    R = ratings()
    R = mf.Ratings(
        R,
        user_ids=[f"u{n}" for n in range(50)],
        item_ids=range(40),
        sample_weight=np.linspace(0.5, 2, R.nnz),
    )
    model = mf.factorize(R, 4, epochs=2, rng=0)
    for kept in (True, False):
        model.save(tmp_path / "model.npz", ratings=kept)
        mapped = mf.load(tmp_path / "model.npz", mmap=True)
        assert is_mapped(mapped.P)
        assert state_of(mapped) == state_of(mf.load(tmp_path / "model.npz"))
        assert mapped.predict("u7", 3) == model.predict("u7", 3)
    empty = mf.Factors(np.ones((0, 3)), np.ones((3, 0)))
    empty.save(tmp_path / "empty.npz")
    assert state_of(mf.load(tmp_path / "empty.npz", mmap=True)) == state_of(empty)


def test_mmap__keeps_the_old_model_while_another_is_saved(tmp_path):
    path = tmp_path / "model.npz"
    model = fit()
    model.save(path)
    mapped = mf.load(path, mmap=True)
    other = fit("als")
    other.save(path)
    assert state_of(mapped) == state_of(model)
    assert state_of(mf.load(path, mmap=True)) == state_of(other)


@LINUX
def test_mmap__is_of_the_file_and_takes_no_memory_of_the_process(tmp_path):
    """A process that has loaded 64 MB has next to no memory of its own for them."""
    rng = np.random.default_rng(0)
    path = tmp_path / "model.npz"
    P, Q = rng.random((200_000, 64), np.float32), rng.random((64, 50_000), np.float32)
    mf.Factors(P, Q).save(path)
    code = """
import sys, mfkernel as mf
def own():
    lines = open("/proc/self/smaps_rollup")
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))
before = own()
model = mf.load(sys.argv[1], mmap=bool(int(sys.argv[2])))
maps = sum(line.rstrip().endswith(sys.argv[1]) for line in open("/proc/self/maps"))
print(own() - before, maps, model.P[5, 7])
"""
    found = [run_python(code, path, mmap) for mmap in (1, 0)]
    assert not any(run.stderr for run in found)
    (mapped, maps, value), (copied, no_maps, same) = (run.stdout.split() for run in found)
    assert int(mapped) < 8_000  # KiB
    assert int(copied) > 60_000
    assert int(maps) > 0
    assert (no_maps, value) == ("0", same)


@pytest.mark.parametrize("file", [io.BytesIO, Unseekable])
def test_mmap__needs_a_path(file):
    stream = io.BytesIO()
    fit().save(stream)
    with pytest.raises(ValueError, match="mmap must be False with a file object, got .*; pass the path"):
        mf.load(file(stream.getvalue()), mmap=True)
    with pytest.raises(TypeError, match="mmap must be True or False, got 'r'"):
        mf.load("model.npz", mmap="r")


def test_mmap__names_the_remedy_for_files_that_cannot_be_mapped(tmp_path):
    path, model = tmp_path / "model.npz", fit()
    model.save(path)
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez(path, **content)  # as earlier versions did
    with pytest.raises(ValueError, match=r"mmap must be False for .*model\.npz: .*aligned.*load it without"):
        mf.load(path, mmap=True)
    mf.load(path).save(path)
    assert state_of(mf.load(path, mmap=True)) == state_of(model)
    np.savez_compressed(path, **content)
    with pytest.raises(ValueError, match=r"model\.npz is not a model.*is compressed.*without compression"):
        mf.load(path, mmap=True)


@examples(300)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4)), min_size=1, max_size=4
    ),
    end=st.just(1.0) | st.floats(0, 1),
)
def test_mmap__of_a_damaged_file_yields_the_model_or_a_plain_error(tmp_path_factory, changes, end):
    path = Path(tmp_path_factory.getbasetemp()) / "mapped.npz"
    path.unlink(missing_ok=True)
    model = mf.Factors(
        np.arange(6.0).reshape(3, 2), np.arange(8.0).reshape(2, 4), mean=1.0, user_ids=[1, 5, 3]
    )
    model.save(path)
    data = bytearray(path.read_bytes())
    for share, length, new in changes:
        start = int(share * len(data))
        data[start : start + length] = new
    path.unlink()
    path.write_bytes(data[: int(end * len(data))])
    try:
        loaded = mf.load(path, mmap=True)
    except (ValueError, OSError):
        return
    assert state_of(loaded) == state_of(model)


@pytest.mark.parametrize("name", MAPPED)
def test_mmap__finds_each_changed_byte(tmp_path, name):
    path = tmp_path / "model.npz"
    fit(k=8).save(path)
    with zipfile.ZipFile(path) as file:
        member = file.getinfo(f"{name}.npy")
    data = bytearray(path.read_bytes())
    data[member.header_offset + member.file_size] ^= 1  # in the array: headers are shorter than 200 bytes
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a model")):
        mf.load(path, mmap=True)
