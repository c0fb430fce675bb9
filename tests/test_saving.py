"""The file of a model: its owner and mode, what a killed process leaves, and which files are refused."""

import errno
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import mfkernel as mf
from mfkernel.model import archive, atomic
from tests.files import npy, npy_of, zip_of
from tests.helpers import POSIX, ROOT
from tests.processes import TracedMemory, repeating, run_python

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="files without a name are of Linux")
P, Q = np.arange(6.0).reshape(3, 2), np.arange(8.0).reshape(2, 4)


def model(mean=0.0, n=3):
    return mf.Factors(np.resize(P, (n, 2)), Q, mean=mean)


def names(folder):
    return sorted(os.listdir(folder))  # noqa: PTH208 (hidden files too)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 (path may be text)


@pytest.fixture(params=["draft without a name", "draft with a name"])
def any_draft(request, monkeypatch):
    """Save in both ways, of which many systems know the second only."""
    if request.param == "draft with a name":
        monkeypatch.setattr("mfkernel.model.atomic._open_nameless", lambda folder, mode: None)


# what a new file takes over from the one that it replaces


@POSIX
@pytest.mark.parametrize("bits", [0o600, 0o640, 0o664, 0o700])
def test_save__keeps_the_mode_of_the_file_that_it_replaces(tmp_path, any_draft, bits):
    path = tmp_path / "model.npz"
    model().save(path)
    path.chmod(bits)
    model(mean=2.0).save(path)
    assert mode(path) == bits
    assert mf.load(path).mean == 2.0


@POSIX
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_save__gives_a_new_file_the_mode_that_open_gives(tmp_path, any_draft, mask):
    before = os.umask(mask)
    try:
        model().save(tmp_path / "model.npz")
        (tmp_path / "other").write_text("")
    finally:
        os.umask(before)
    assert mode(tmp_path / "model.npz") == mode(tmp_path / "other") == 0o666 & ~mask


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_save__keeps_the_owner_of_the_file_that_it_replaces(tmp_path, any_draft):
    path = tmp_path / "model.npz"
    model().save(path)
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    model().save(path)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (1234, 2345, 0o640)


@POSIX
def test_save__gives_nobody_more_access_where_the_group_cannot_be_kept(tmp_path, any_draft, monkeypatch):
    path = tmp_path / "model.npz"
    model().save(path)
    for bits, narrower in ((0o640, 0o600), (0o664, 0o644), (0o606, 0o600)):
        path.chmod(bits)
        with monkeypatch.context() as patch:
            patch.setattr("mfkernel.model.atomic._give_to", lambda *_: False)
            model().save(path)
        assert mode(path) == narrower


@LINUX
def test_save__keeps_extended_attributes(tmp_path, any_draft):
    path = tmp_path / "model.npz"
    model().save(path)
    try:
        os.setxattr(path, "user.origin", b"survey")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    model().save(path)
    assert os.getxattr(path, "user.origin") == b"survey"


@POSIX
@pytest.mark.parametrize("exists", [True, False])
def test_save__follows_symbolic_links(tmp_path, any_draft, exists):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link, again = tmp_path / "link.npz", tmp_path / "again.npz"
    link.symlink_to("elsewhere/model.npz")
    again.symlink_to(link)
    if exists:
        model().save(folder / "model.npz")
    model(mean=3.0).save(again)
    assert link.readlink() == Path("elsewhere/model.npz")
    assert again.is_symlink()
    assert not (folder / "model.npz").is_symlink()
    assert mf.load(folder / "model.npz").mean == 3.0
    assert names(folder) == ["model.npz"]


# what is refused, and left alone


@POSIX
def test_save_and_load__refuse_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # the address of a socket is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        (tmp_path / "link").symlink_to("pipe")
        for name, kind in (("pipe", "a pipe"), ("socket", "a socket"), ("link", "a pipe")):
            for call in (model().save, mf.load):
                with pytest.raises(ValueError, match=rf"{name}.*{kind}"):
                    call(tmp_path / name)
    for call in (model().save, mf.load):
        with pytest.raises(ValueError, match=r"/dev/null, a device"):
            call("/dev/null")
        with pytest.raises(IsADirectoryError, match=tmp_path.name):
            call(tmp_path)
    assert names(tmp_path) == ["link", "pipe", "socket"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("end", ["/", "//", "/.", "/sub/.."])
@pytest.mark.parametrize("exists", [True, False])
def test_save__refuses_a_path_that_ends_as_a_folder(tmp_path, end, exists):
    if exists:
        (tmp_path / "model.npz").write_text("a file")
    path = f"{tmp_path}/model.npz{end}"
    for call in (model().save, atomic.check):
        with pytest.raises(ValueError, match=f"must name a file, got {re.escape(path)}, a folder"):
            call(path)
    assert names(tmp_path) == ["model.npz"] * exists


@POSIX
@pytest.mark.parametrize("call", ["mf.Factors(np.ones((2, 1)), np.ones((1, 2))).save", "atomic.check"])
def test_save__says_that_its_output_is_a_pipe(call):
    if not Path("/dev/stdout").exists():
        pytest.skip("no /dev/stdout on this system")
    program = f"import numpy as np, mfkernel as mf\nfrom mfkernel.model import atomic\n{call}('/dev/stdout')"
    run = run_python(program)
    assert run.stderr.splitlines()[-1] == (
        "ValueError: path must name a regular file, got /dev/stdout, a pipe"
    )
    assert run.stdout == ""


@POSIX
@pytest.mark.parametrize("call", ["save", "load", "check"])
def test_save_and_load__name_the_path_in_a_folder_that_is_gone(tmp_path, call):
    (tmp_path / "gone").mkdir()
    calls = {
        "save": "mf.Factors(np.ones((2, 1)), np.ones((1, 2))).save",
        "load": "mf.load",
        "check": "atomic.check",
    }
    program = (
        "import os, shutil, sys\nimport numpy as np, mfkernel as mf\nfrom mfkernel.model import atomic\n"
    )
    program += f"os.chdir(sys.argv[1])\nshutil.rmtree(sys.argv[1])\n{calls[call]}('model.npz')"
    run = run_python(program, tmp_path / "gone")
    assert re.fullmatch(r"FileNotFoundError: .*'model\.npz'", run.stderr.splitlines()[-1])


@POSIX
def test_save__refuses_links_that_lead_nowhere(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "lost").symlink_to("missing/model.npz")
    for name in ("circle", "lost"):
        with pytest.raises(OSError, match=name):
            model().save(tmp_path / name)
    assert names(tmp_path) == ["circle", "lost"]


@pytest.fixture
def open_folder():
    """Return a folder that all may use; those of a test run are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


AS_NOBODY = """
import os, sys
import numpy as np, mfkernel as mf
model = mf.Factors(np.ones((3, 2)), np.ones((2, 4)))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    model.save(sys.argv[1])
except PermissionError as error:
    print("refused", error.filename == sys.argv[1])
else:
    print("saved")
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root may write all files")
@pytest.mark.parametrize(("bits", "end"), [(0o644, "refused True"), (0o666, "saved"), (0o606, "saved")])
def test_save__replaces_no_file_that_it_may_not_write(open_folder, bits, end):
    path = open_folder / "model.npz"
    model().save(path)
    path.chmod(bits)
    os.chown(path, 0, 12)
    done = run_python(AS_NOBODY, path)
    assert done.stdout.strip() == end, done.stderr
    if end == "saved":  # by somebody who can keep neither owner nor group
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (65534, 65534)
        assert mode(path) == {0o666: 0o666, 0o606: 0o600}[bits]


@pytest.mark.parametrize("length", [1, 100, 251, 255])
def test_save__takes_names_up_to_the_limit_of_the_system(tmp_path, any_draft, length):
    for name in ("m" * length, "é" * (length // 2) + "m" * (length % 2)):
        model().save(tmp_path / name)
        model(mean=1.0).save(tmp_path / name)
        assert mf.load(tmp_path / name).mean == 1.0
    assert all(len(os.fsencode(name)) == length for name in names(tmp_path))


@POSIX
def test_save__names_a_target_that_is_too_long(tmp_path):
    with pytest.raises(OSError, match="m" * 256) as error:
        model().save(tmp_path / ("m" * 256))
    assert error.value.errno == errno.ENAMETOOLONG
    assert names(tmp_path) == []


# what goes wrong on the way

LIMITED = """
import resource, sys
import numpy as np, mfkernel as mf
from mfkernel.model import archive, atomic
if sys.argv[2] == "named":
    atomic._open_nameless = lambda folder, mode: None
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    mf.Factors(np.ones((300_000, 2)), np.ones((2, 4))).save(sys.argv[1])
except OSError as error:
    print(error.errno, error.filename == sys.argv[1])
"""


@POSIX
@pytest.mark.parametrize("way", ["nameless", "named"])
def test_save__leaves_the_old_file_where_there_is_no_room(tmp_path, way):
    path = tmp_path / "model.npz"
    model(mean=5.0).save(path)
    before = path.read_bytes()
    done = run_python(LIMITED, path, way)
    assert done.stdout.split() == [str(errno.EFBIG), "True"]
    assert done.stderr == ""
    assert path.read_bytes() == before
    assert names(tmp_path) == ["model.npz"]


@pytest.mark.parametrize("error", [MemoryError("no room"), KeyboardInterrupt(), RuntimeError("other")])
def test_save__passes_other_errors_on(tmp_path, any_draft, monkeypatch, error):
    def fail(file, arrays):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(archive, "_write_arrays", fail)
    with pytest.raises(type(error)) as caught:
        model().save(tmp_path / "model.npz")
    assert caught.value is error
    assert names(tmp_path) == []


def test_load__a_lack_of_memory_stays_one(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    model().save(path)
    monkeypatch.setattr("mfkernel.model.archive.available_memory", lambda: 100)
    with pytest.raises(MemoryError, match=r"model\.npz.*GiB"):
        mf.load(path)
    monkeypatch.undo()

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(np.lib.format, "read_array", fail)
    with pytest.raises(MemoryError, match=r"model\.npz"):
        mf.load(path)


# saves, and stops in the middle until a line arrives
STOPS = """
import sys
import numpy as np, mfkernel as mf
from mfkernel.model import archive, atomic
if sys.argv[2] == "named":
    atomic._open_nameless = lambda folder, mode: None
write = archive._write_arrays
def slow(file, arrays):
    file.write(b"half of it")
    file.flush()
    print("half", flush=True)
    sys.stdin.readline()
    file.seek(0)
    write(file, arrays)
archive._write_arrays = slow
mf.Factors(np.ones((3, 2)), np.ones((2, 4)), mean=7.0).save(sys.argv[1])
"""


def stop_halfway(path, way="named"):
    """Return a process that has written half of a draft."""
    run = [sys.executable, "-c", STOPS, str(path), way]
    process = subprocess.Popen(run, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half\n"
    return process


@LINUX
@pytest.mark.parametrize("method", ["terminate", "kill"])
def test_save__a_killed_process_leaves_nothing_behind(tmp_path, method):
    with stop_halfway(tmp_path / "model.npz", "nameless") as process:
        assert names(tmp_path) == []
        getattr(process, method)()
    assert names(tmp_path) == []


@pytest.mark.slow
@POSIX
def test_save__removes_the_drafts_of_killed_processes_and_no_others(tmp_path, any_draft):
    path = tmp_path / "model.npz"
    with stop_halfway(path) as killed:
        killed.kill()
    with stop_halfway(tmp_path / "other.npz") as killed:
        killed.kill()
    abandoned, foreign = names(tmp_path)
    if abandoned.split("-")[1] != atomic._draft_prefix(path).name.split("-")[1]:
        abandoned, foreign = foreign, abandoned
    kind, target, machine, token = abandoned.split("-")
    elsewhere = f"{kind}-{target}-{'0' * len(machine)}-{token}"  # written on another machine, perhaps now
    (tmp_path / elsewhere).write_bytes(b"half of it")
    with stop_halfway(path) as alive:
        (draft,) = set(names(tmp_path)) - {abandoned, foreign, elsewhere}
        model().save(path)
        assert set(names(tmp_path)) == {draft, foreign, elsewhere, "model.npz"}
        assert mf.load(path).mean == 0.0
        alive.communicate(b"\n", timeout=60)
        assert alive.returncode == 0
    assert mf.load(path).mean == 7.0  # the last one wins
    assert set(names(tmp_path)) == {foreign, elsewhere, "model.npz"}


@pytest.mark.slow
def test_save__from_several_threads_leaves_a_whole_file(tmp_path, any_draft):
    path, models = tmp_path / "model.npz", [model(mean=float(n), n=1000 * (n + 1)) for n in range(4)]
    models[0].save(path)
    with repeating(*(partial(one.save, path) for one in models)):
        end = time.monotonic() + 1
        while time.monotonic() < end:
            loaded = mf.load(path)
            assert loaded.shape == models[int(loaded.mean)].shape
    assert names(tmp_path) == ["model.npz"]


@pytest.mark.parametrize("objects", [["a", "b"], [1, "a"], [None], [["a", "b"]]])
def test_save__pickles_no_objects(tmp_path, objects):
    with pytest.raises(TypeError, match="ids must be an array of numbers or text, got dtype object"):
        archive.write(tmp_path / "file", {"format": 1}, {"ids": np.array(objects, object)})
    assert names(tmp_path) == []


# what a file says of itself


def write_model(path, data, method=zipfile.ZIP_STORED):
    """Write a file of a model with this content as P; return the path."""
    header = npy_of(np.array(json.dumps({"format": 1})))
    path.write_bytes(zip_of({"header.npy": header, "P.npy": data}, method))
    return path


LYING = {
    "terabytes": npy((10**12,)),
    "more than there is": npy((3,), data=bytes(16)),
    "less than there is": npy((1,), data=bytes(16)),
    "negative": npy((-1, -2), data=bytes(16)),
    "overflowing": npy((2**40, 2**40)),
    "no bytes each": npy((10**12,), "<U0"),
    "nothing, often": npy((10**12, 0)),
    "objects": npy((1,), "|O", b"cos\nsystem\n(S'true'\ntR."),
    "records": npy((1,), [("a", "<f8")], bytes(8)),
    "dates": npy((1,), "<M8[s]", bytes(8)),
    "bytes": npy((1,), "|S8", bytes(8)),
    "not an array": b"P" * 100,
}


@pytest.mark.parametrize("data", LYING.values(), ids=LYING)
def test_load__believes_no_size_that_a_file_declares(tmp_path, data):
    path = write_model(tmp_path / "model.npz", data)
    message = r"model\.npz is not a model saved by mfkernel"
    with TracedMemory() as memory, pytest.raises(ValueError, match=message):
        archive.read(path, range(1, 2))
    assert memory.peak < 10**6


def test_load__decompresses_nothing(tmp_path):
    path = write_model(tmp_path / "bomb.npz", npy((2 * 10**6,), data=bytes(16 * 10**6)), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with TracedMemory() as memory, pytest.raises(ValueError, match=r"bomb\.npz is not a model.*compressed"):
        archive.read(path, range(1, 2))
    assert memory.peak < 10**6


def test_load__counts_no_byte_twice(tmp_path):
    """Many entries of a zip file may share the same bytes of it."""
    path = write_model(tmp_path / "model.npz", npy((10**5,), data=bytes(8 * 10**5)))
    with zipfile.ZipFile(path, "a") as file:
        member = file.getinfo("P.npy")
        for n in range(50):
            twin = zipfile.ZipInfo(f"P{n:02}.npy")
            for name in ("CRC", "compress_size", "file_size", "header_offset", "create_version"):
                setattr(twin, name, getattr(member, name))
            file.filelist.append(twin)
            file.NameToInfo[twin.filename] = twin
        file._didModify = True
    with TracedMemory() as memory, pytest.raises(ValueError, match=r"not a model.*larger than the file"):
        archive.read(path, range(1, 2))
    assert memory.peak < 10**6


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_load__refuses_two_arrays_of_one_name(tmp_path):
    path = write_model(tmp_path / "model.npz", npy((1,), data=bytes(8)))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("P.npy", npy((1,), data=bytes(8)))
    with pytest.raises(ValueError, match=r"not a model.*same name"):
        archive.read(path, range(1, 2))
