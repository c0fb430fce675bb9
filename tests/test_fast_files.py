"""Large files, which pyarrow parses block by block: the same ratings and errors as line by line."""

import threading
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.data.files import arrow, text

pytest.importorskip("pyarrow")

SEPARATORS = ("\t", ",", ";", "::", " ")
IDS = st.one_of(
    st.integers(0, 30).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["007", "+7", "-0", "0", "1.0", "1e3", "a", "é", "x y", " 5", "5 ", "", "#3", "%", "\u0663", "1_0"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
RATINGS = st.one_of(
    st.integers(1, 5).map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["3.5", "05", "+2", " 4 ", "", "nan", "inf", "1e400", "0x1p3", "1,5", "NULL", "1_0", ".5", "5."]
    ),
)


def outcome(path, **options):
    """Return the ratings by id, or the error."""
    try:
        R = mf.read_ratings(path, duplicates="last", **options)
    except ValueError as error:
        return str(error)
    kinds = R.user_ids.dtype.kind, R.item_ids.dtype.kind, R.dtype
    return (
        kinds,
        R.shape,
        [*zip(R.user_ids[R.users].tolist(), R.item_ids[R.items].tolist(), R.values.tolist(), strict=True)],
    )


@pytest.fixture
def blockwise(monkeypatch):
    """Let even short files be parsed by pyarrow, in short blocks; the function switches it off and on."""
    monkeypatch.setattr(text, "SHORT_FILE", -1)
    monkeypatch.setattr(text, "BLOCK_BYTES", 64)
    return lambda on: monkeypatch.setattr(arrow, "is_installed", lambda: on)


def both(path, switch, **options):
    switch(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "large files")
        careful = outcome(path, **options)
    switch(True)
    return careful, outcome(path, **options)


@given(
    separator=st.sampled_from(SEPARATORS),
    rows=st.lists(
        st.tuples(IDS, IDS, RATINGS, st.sampled_from(["", "1260759144", "5"])), min_size=1, max_size=12
    ),
    header=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    quoted=st.booleans(),
    named=st.booleans(),
)
def test_read_ratings__reads_blocks_as_it_reads_lines(
    tmp_path_factory, separator, rows, header, ending, quoted, named
):
    path = tmp_path_factory.mktemp("files") / "ratings"
    if quoted:
        rows = [(f'"{u}"', f'"{i}"', r, t) for u, i, r, t in rows]
    lines = [separator.join(row).rstrip(separator) for row in rows]
    if header:
        lines.insert(0, separator.join(["user", "item", "rating", "time"]))
    path.write_text(ending.join(lines) + ending * named, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "SHORT_FILE", -1)
        patch.setattr(text, "BLOCK_BYTES", 64)
        careful, fast = both(path, lambda on: patch.setattr(arrow, "is_installed", lambda: on))
    assert fast == careful


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("ids", ["integers", "texts", "wide integers", "late text"])
def test_read_ratings__takes_plain_blocks_without_the_careful_reader(
    tmp_path, blockwise, monkeypatch, separator, ids
):
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 40, 200), rng.integers(0, 2**62 if ids == "wide integers" else 30, 200)
    names = [f"item{n}" for n in items] if ids == "texts" else items.tolist()
    if ids == "late text":
        names[150] = "x"
    path = tmp_path / "ratings"
    path.write_text(
        "".join(
            f"{u}{separator}{i}{separator}{n % 9 / 2}\n"
            for n, (u, i) in enumerate(zip(users, names, strict=True))
        )
    )
    careful, _ = both(path, blockwise)

    def refuse(*_):
        raise AssertionError("a plain line went to the careful reader")

    monkeypatch.setattr(text, "_read_lines", refuse)
    monkeypatch.setattr(text, "_plain_ratings", refuse)
    assert outcome(path) == careful


def test_read_ratings__names_the_first_wrong_line_of_many_blocks(tmp_path, blockwise):
    lines = [f"{n},{n % 7},3" for n in range(1, 400)]
    lines[70], lines[300] = "71,1,x", "301,1,y"
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(lines))
    careful, fast = both(path, blockwise)
    assert fast == careful
    assert "line 71" in fast
    assert "'71,1,x'" in fast


def test_read_ratings__is_the_same_on_any_number_of_threads(tmp_path, blockwise, monkeypatch):
    path = tmp_path / "ratings.csv"
    path.write_text("".join(f"u{n % 37},{n % 11},{n % 5}\n" for n in range(900)))
    found = set()
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(text, "available_cores", lambda n=n_threads: n)
        found.add(repr(outcome(path)))
    assert len(found) == 1


def test_read_ratings__without_pyarrow_says_what_would_be_faster(tmp_path, blockwise):
    blockwise(False)
    path = tmp_path / "ratings.csv"
    path.write_text("1,2,3\n")
    with pytest.warns(UserWarning, match=r"mfkernel\[files\]"):
        mf.read_ratings(path)


def test_read_ratings__leaves_no_thread(tmp_path, blockwise):
    path = tmp_path / "ratings.csv"
    path.write_text("1,2,3\n" * 50)
    before = threading.active_count()
    mf.read_ratings(path, duplicates="sum")
    assert threading.active_count() == before
