"""Files of all forms: packed, Parquet, Arrow, JSON Lines, Netflix; times, separators, missing ratings."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.data.files import text
from tests.files import zip_of

ROWS = [(7, "b", 5.0, 86400.0), (7, "a", 3.5, 172800.0), (1000, "b", 1.0, 0.0)]
CSV = "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r},{t:.0f}\n" for u, i, r, t in ROWS)
FILES = pytest.importorskip("pyarrow")


def by_id(R):
    """Return the ratings by id, with their times if there are any."""
    times = [None] * R.nnz if R.timestamps is None else R.timestamps.tolist()
    users, items = R.user_ids[R.users].tolist(), R.item_ids[R.items].tolist()
    return sorted(zip(users, items, R.values.tolist(), times, strict=True))


def expected(times=True):
    return sorted((u, i, r, t if times else None) for u, i, r, t in ROWS)


@pytest.fixture(params=[False, True], ids=["short", "blocks"])
def blocks(request, monkeypatch):
    """Read lines one by one, or with pyarrow in short blocks."""
    if request.param:
        monkeypatch.setattr(text, "SHORT_FILE", -1)
        monkeypatch.setattr(text, "BLOCK_BYTES", 32)
    return request.param


def written(tmp_path, content, name="ratings"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# packed files and sources


def zstd(data):
    return FILES.compress(data, codec="zstd", asbytes=True)


PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd}


@pytest.mark.parametrize("kind", PACKERS)
def test_packed__files_are_read_and_damage_is_named(kind, tmp_path):
    packed = PACKERS[kind](CSV.encode())
    assert by_id(mf.read_ratings(written(tmp_path, packed), timestamp=True)) == expected()
    with pytest.raises(ValueError, match="ratings is damaged"):
        mf.read_ratings(written(tmp_path, packed[: len(packed) // 2]))


@pytest.mark.parametrize("kind", PACKERS)
def test_packed__files_may_not_explode_or_nest(kind, tmp_path):
    with pytest.raises(ValueError, match="must unpack to at most"):
        mf.read_ratings(written(tmp_path, PACKERS[kind](b"#" + b"\n" * 2**26 + b"1 1 1\n")))
    with pytest.raises(ValueError, match=f"got {kind} within a packed file"):
        mf.read_ratings(written(tmp_path, gzip.compress(PACKERS[kind](CSV.encode()))))


ZIPPED = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=300, unique=True),
    method=st.sampled_from(list(ZIPPED.values())),
    at=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_zip__members_are_read_by_all_packings_and_damage_is_refused(tmp_path_factory, rows, method, at, bit):
    text = "".join(f"{u} {i} {(u + i) % 5}\n" for u, i in rows)
    content = zip_of({"ratings.txt": text}, method)
    folder = tmp_path_factory.getbasetemp()
    R = mf.read_ratings(written(folder, content))
    assert {(int(R.user_ids[u]), int(R.item_ids[i])) for u, i in zip(R.users, R.items, strict=True)} == {
        *rows
    }
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.infolist()[0].compress_size
    damaged = bytearray(content)
    damaged[30 + len("ratings.txt") + int(at * size)] ^= 1 << bit
    try:
        assert mf.read_ratings(written(folder, bytes(damaged))).nnz == R.nnz  # in a bit that does not count
    except ValueError as error:
        assert "is damaged at 'ratings.txt'" in str(error)  # noqa: PT017 (both outcomes are right)


@pytest.mark.parametrize("method", ["bzip2", "lzma"])
def test_zip__members_unpack_no_more_than_is_read(method, tmp_path):
    content = zip_of({"a": b"1 2 3\n" + b"\n" * 2**25}, ZIPPED[method])
    with pytest.raises(ValueError, match="must unpack to at most"):
        mf.read_ratings(written(tmp_path, content))
    few = content.replace(struct.pack("<I", 2**25 + 6), struct.pack("<I", 1000))  # of a dishonest archive
    tracemalloc.start()
    with pytest.raises(ValueError, match="is damaged at 'a': its checksum is another"):
        mf.read_ratings(written(tmp_path, few))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24  # bytes


def test_open_files__are_read_and_stay_open(tmp_path):
    assert by_id(mf.read_ratings(io.BytesIO(CSV.encode()))) == expected(times=False)
    with written(tmp_path, CSV).open("rb") as file:
        assert by_id(mf.read_ratings(file)) == expected(times=False)
        assert not file.closed
    with pytest.raises(TypeError, match="opened in binary mode"):
        mf.read_ratings(io.StringIO(CSV))
    with written(tmp_path, "1,2\n").open("rb") as file, pytest.raises(ValueError, match="ratings, line 1"):
        mf.read_ratings(file)


def test_urls__are_opened_by_fsspec(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://folder/r.csv", "wb") as file:
        file.write(CSV.encode())
    assert by_id(mf.read_ratings("memory://folder/r.csv")) == expected(times=False)
    assert by_id(mf.read_ratings(written(tmp_path, CSV).as_uri())) == expected(times=False)
    with pytest.raises(FileNotFoundError):
        mf.read_ratings("memory://folder/none.csv")


# times, separators, decimal commas, missing ratings


def test_timestamp__is_kept_by_name_position_or_usual_name(blocks, tmp_path):
    path = written(tmp_path, CSV)
    for timestamp in (True, "timestamp", "Timestamp", 3):
        assert by_id(mf.read_ratings(path, timestamp=timestamp)) == expected()
    assert mf.read_ratings(path).timestamps is None
    plain = written(tmp_path, "".join(f"{u}\t{i}\t{r}\t{t + 1e9}\n" for u, i, r, t in ROWS))
    assert mf.read_ratings(plain, timestamp=True).timestamps.min() == 1e9
    with pytest.raises(ValueError, match="timestamp must be a column.*'when'"):
        mf.read_ratings(path, timestamp="when")
    for wrong in (-1, 1.5, None):
        with pytest.raises(TypeError, match="timestamp must be True, a name or a position"):
            mf.read_ratings(path, timestamp=wrong)


@pytest.mark.parametrize(
    "date", ["1970-01-02", "1970-01-02T00:00:00", "1970-01-02 00:00:00", "86400", "86400.0"]
)
def test_timestamp__may_be_a_date(date, blocks, tmp_path):
    path = written(tmp_path, f"user,item,rating,date\n1,2,3,{date}\n1,3,3,172800\n")
    assert mf.read_ratings(path, timestamp=True).timestamps.tolist() == [86400, 172800]


def test_timestamp__that_is_none_is_named(blocks, tmp_path):
    path = written(tmp_path, "user,item,rating,date\n1,2,3,5\n1,3,3,yesterday\n")
    with pytest.raises(ValueError, match=r"line 3: expected a time .* in column 4, got '1,3,3,yesterday'"):
        mf.read_ratings(path, timestamp=True)


@pytest.mark.parametrize("separator", ["|", "^", "\\", "!", ";", "\t", "::"])
def test_separator__may_be_any_mark(separator, blocks, tmp_path):
    path = written(tmp_path, CSV.replace(",", separator))
    given = {} if separator in ("|", ";", "\t", "::") else {"separator": separator}
    assert by_id(mf.read_ratings(path, timestamp=True, **given)) == expected()
    assert by_id(mf.read_ratings(path, timestamp=True, separator=separator)) == expected()


@pytest.mark.parametrize("separator", ["a", "7", '"', "-", "", "||", " ", 3, "é"])
def test_separator__that_cannot_be_is_refused(separator, tmp_path):
    with pytest.raises(ValueError, match="separator must be"):
        mf.read_ratings(written(tmp_path, CSV), separator=separator)


def test_decimal__comma(blocks, tmp_path):
    path = written(tmp_path, "user;item;rating\n7;b;5\n7;a;3,5\n1000;b;1,0\n")
    assert by_id(mf.read_ratings(path, decimal=",")) == expected(times=False)
    with pytest.raises(ValueError, match="decimal comma; pass decimal=','"):
        mf.read_ratings(path)
    with pytest.raises(ValueError, match=r"line 2: .*got '1;2;3\.5'"):
        mf.read_ratings(written(tmp_path, "user;item;rating\n1;2;3.5\n1;3;3,5\n"), decimal=",")
    with pytest.raises(ValueError, match="decimal must be one of"):
        mf.read_ratings(path, decimal=";")


def test_nulls__are_left_out_and_counted_on_request(blocks, tmp_path):
    lines = "7,c,,1\n7,d,NULL,2\n7,e,nan,3\n7,f,N/A,4\n"
    path = written(tmp_path, CSV + lines + "9,g,4,5\n")
    with pytest.warns(UserWarning, match="ratings: 4 lines without a rating are left out"):
        R = mf.read_ratings(path, nulls="drop", timestamp=True)
    assert by_id(R) == sorted([*expected(), (9, "g", 4.0, 5.0)])
    with pytest.raises(ValueError, match=r"line 5: .*\(''\); pass nulls='drop'"):
        mf.read_ratings(path)
    with pytest.raises(ValueError, match="line 9"):
        mf.read_ratings(written(tmp_path, CSV + lines + "9,g,four,5\n"), nulls="drop")
    with pytest.raises(ValueError, match="line 5"):
        mf.read_ratings(written(tmp_path, CSV + ",g,4,5\n"), nulls="drop")


FIELDS = st.sampled_from(["1", "2", "x", "", "NULL", "3,5", "2.5", "nan", "1e3", "2005-09-06", "7"])


@pytest.mark.property
@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS, FIELDS), min_size=1, max_size=8),
    decimal=st.sampled_from([".", ","]),
    nulls=st.sampled_from(["raise", "drop"]),
    timestamp=st.sampled_from([False, True, 0]),
    header=st.booleans(),
)
def test_blocks__are_read_as_lines_are(tmp_path_factory, rows, decimal, nulls, timestamp, header):
    content = "user|item|rating|time\n" * header + "".join("|".join(row) + "\n" for row in rows)
    path = written(tmp_path_factory.mktemp("files"), content)
    options = {"decimal": decimal, "nulls": nulls, "timestamp": timestamp, "duplicates": "last"}
    found = []
    for fast in (False, True):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if fast:
                patch.setattr(text, "SHORT_FILE", -1)
                patch.setattr(text, "BLOCK_BYTES", 24)
            try:
                result = by_id(mf.read_ratings(path, **options))
            except ValueError as error:
                result = str(error)
                caught = []
        found.append((result, [str(x.message) for x in caught]))
    assert found[0] == found[1]


# tables


def table(library="pyarrow", **more):
    from mfkernel._support.frames import make_frame

    users, items, values, times = (np.array(x) for x in zip(*ROWS, strict=True))
    return make_frame({"userId": users, "title": items, "stars": values, "date": times} | more, library)


def write_table(kind, path, content):
    from pyarrow import feather, ipc, parquet

    if kind == "parquet":
        parquet.write_table(content, path)
    elif kind == "feather":
        feather.write_feather(content, path)
    else:
        with ipc.new_stream(path, content.schema) as writer:
            writer.write_table(content)
    return path


@pytest.mark.parametrize("kind", ["parquet", "feather", "stream"])
def test_tables__are_read_by_their_column_names(kind, tmp_path):
    pytest.importorskip("narwhals")
    path = write_table(kind, tmp_path / "t", table())
    columns = ["userId", "title", "stars"]
    for chosen in (columns, (0, 1, 2)):
        assert by_id(mf.read_ratings(path, columns=chosen, timestamp=True)) == expected()
    with path.open("rb") as file:
        assert by_id(mf.read_ratings(file, columns=columns)) == expected(times=False)
    packed = written(tmp_path, gzip.compress(path.read_bytes()))
    assert by_id(mf.read_ratings(packed, columns=columns)) == expected(times=False)
    with pytest.raises(ValueError, match=r"t must have columns of users and items, got 'userId'"):
        mf.read_ratings(path)
    with pytest.raises(ValueError, match="columns must be below 4.*got 9"):
        mf.read_ratings(path, columns=(0, 1, 9))
    with pytest.raises(ValueError, match="'when'"):
        mf.read_ratings(path, columns=columns, timestamp="when")
    damaged = written(tmp_path, path.read_bytes()[:-20])
    if kind != "stream":
        with pytest.raises(ValueError, match="ratings must be a whole Parquet or Arrow file"):
            mf.read_ratings(damaged, columns=columns)


def test_tables__with_nulls_and_duplicates(tmp_path):
    content = table(stars=np.array([5.0, np.nan, 1.0]))
    path = write_table("parquet", tmp_path / "t", content)
    columns = ["userId", "title", "stars"]
    with pytest.raises(ValueError, match=r"t: rating must have no missing values, got 1"):
        mf.read_ratings(path, columns=columns)
    with pytest.warns(UserWarning, match="t: 1 rows with missing values are left out"):
        assert mf.read_ratings(path, columns=columns, nulls="drop").nnz == 2
    twice = write_table("parquet", tmp_path / "u", table(title=np.array(["b", "b", "b"])))
    with pytest.raises(ValueError, match=r"u: 1 duplicate ratings \(the first of user 7 for item b\)"):
        mf.read_ratings(twice, columns=columns)
    assert mf.read_ratings(twice, columns=columns, timestamp=True, duplicates="last").values.tolist() == [
        3.5,
        1,
    ]


# JSON Lines


def lines_of(rows, **more):
    keys = ("reviewerID", "asin", "overall", "unixReviewTime")
    return "".join(json.dumps(dict(zip(keys, row, strict=True)) | more) + "\n" for row in rows)


def test_json_lines__are_read_by_their_keys(blocks, tmp_path):
    path = written(tmp_path, lines_of(ROWS, text='a "quoted"\n{line}', votes=[1, {"a": 2}]))
    assert by_id(mf.read_ratings(path, timestamp=True)) == expected()
    assert by_id(mf.read_ratings(path, columns=("reviewerID", "asin", "overall"))) == expected(times=False)
    assert by_id(mf.read_ratings(written(tmp_path, gzip.compress(path.read_bytes())))) == expected(
        times=False
    )
    dated = [
        (*row[:3], date) for row, date in zip(ROWS, ("1970-01-02", "1970-01-03", "1970-01-01"), strict=True)
    ]
    assert by_id(mf.read_ratings(written(tmp_path, lines_of(dated)), timestamp=True)) == expected()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 4: expected a JSON object, got '{broken'"),
        ("[1]", "line 4: expected a JSON object"),
        ('{"reviewerID": 1, "asin": 2}', "line 4: expected a value of 'overall'"),
        ('{"reviewerID": 1, "asin": 2, "overall": "x"}', "line 4: expected a finite number as 'overall'"),
        ('{"reviewerID": 1, "asin": 2, "overall": NaN}', "line 4: expected a finite number"),
        ('{"reviewerID": 1.5, "asin": "2", "overall": 3}', "line 4: expected an integer or a text as an id"),
        ('{"reviewerID": 1, "asin": true, "overall": 3}', "line 4: expected an integer or a text as an id"),
        ('{"reviewerID": 1, "asin": "", "overall": 3}', "line 4: expected an integer or a text as an id"),
    ],
)
def test_json_lines__that_are_wrong_are_named(line, message, blocks, tmp_path):
    with pytest.raises(ValueError, match=message):
        mf.read_ratings(written(tmp_path, lines_of(ROWS) + line + "\n"))


def test_json_lines__of_other_keys_name_those_there_are(blocks, tmp_path):
    path = written(tmp_path, '{"who": 1, "what": 2, "overall": 3}\n')
    with pytest.raises(ValueError, match="user must be a key of the first object, 'who', 'what', 'overall'"):
        mf.read_ratings(path)
    assert mf.read_ratings(path, columns=("who", "what", "overall")).values.tolist() == [3]
    more = written(tmp_path, lines_of(ROWS) + '{"reviewerID": 1, "asin": 2, "overall": null}\n')
    with pytest.warns(UserWarning, match="1 lines without a rating"):
        R = mf.read_ratings(more, nulls="drop")
    assert by_id(R) == expected(times=False)


VALUES = st.one_of(
    st.integers(-3, 3), st.sampled_from(["a", "1", "07", " x", "", None, 1.5, True, [1], {}, 1e400, 10**30])
)


@pytest.mark.property
@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=6), st.sampled_from(["raise", "drop"])
)
def test_json_lines__are_read_in_blocks_as_one_by_one(tmp_path_factory, rows, nulls):
    content = "".join(
        json.dumps(dict(zip(("user", "item", "rating"), row, strict=True))) + "\n" for row in rows
    )
    path, found = written(tmp_path_factory.mktemp("files"), content), []
    for fast in (False, True):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if fast:
                patch.setattr(text, "SHORT_FILE", -1)
                patch.setattr(text, "BLOCK_BYTES", 40)
            try:
                found.append(by_id(mf.read_ratings(path, nulls=nulls, duplicates="last")))
            except ValueError as error:
                found.append(str(error))
    assert found[0] == found[1]


# the Netflix prize


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_netflix__names_items_in_lines_of_their_own(end, blocks, tmp_path):
    content = end.join(["1:", "30,5,2005-09-06", "20,3,2004-05-13", "10:", "30,4,2005-01-01", ""])
    R = mf.read_ratings(written(tmp_path, content), timestamp=True)
    assert [x[:3] for x in by_id(R)] == [(20, 1, 3.0), (30, 1, 5.0), (30, 10, 4.0)]
    assert R.timestamps.max() == np.datetime64("2005-09-06").astype("datetime64[s]").astype(int)
    wrong = content.replace("30,4", "30,x")
    with pytest.raises(ValueError, match="line 5"):
        mf.read_ratings(written(tmp_path, wrong))


def test_netflix__is_cut_anywhere(tmp_path):
    from mfkernel.data.files.netflix import with_items
    from mfkernel.data.files.streams import Stream

    content = b"1:\n30,5\n20,3\n10:\n30,4\n7:\n8:\n9,1"
    for size in range(1, len(content) + 1):
        parts = iter([content[at : at + size] for at in range(0, len(content), size)] + [b""])
        stream = with_items(Stream(lambda _, parts=parts: next(parts, b"")))
        found = b""
        while part := stream.read(100):
            found += part
        assert found == b"\n1,30,5\n1,20,3\n\n10,30,4\n\n\n8,9,1"


def test_without_pyarrow__the_extra_is_named(monkeypatch, tmp_path):
    import sys

    path = write_table("parquet", tmp_path / "t", table())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ImportError, match=r"a Parquet or Arrow file needs pyarrow: pip install 'mfkernel\[files\]'"
    ):
        mf.read_ratings(path)
    with pytest.raises(ImportError, match=r"a zstd file needs pyarrow"):
        mf.read_ratings(written(tmp_path, b"\x28\xb5\x2f\xfd" + b"x" * 20))


# quoted line breaks

QUOTED = 'user,item,text,rating\n1,a,"two\nlines, ""so""",5\n2,"b\nc",plain,3\n3,d,"open,4\n4,e,5" disc,2\n'


def test_quoted__line_breaks_are_part_of_a_field(blocks, tmp_path):
    columns = ("user", "item", "rating")
    with pytest.raises(ValueError, match="line 6: "):  # a quote that nothing closes
        mf.read_ratings(written(tmp_path, QUOTED), columns=columns)
    R = mf.read_ratings(written(tmp_path, QUOTED.replace('"open', "open")), columns=columns)
    assert [x[:3] for x in by_id(R)] == [(1, "a", 5), (2, "b\nc", 3), (3, "d", 4), (4, "e", 2)]


TEXTS = st.text('x",\n ', max_size=6)


@pytest.mark.property
@given(
    rows=st.lists(st.tuples(st.sampled_from("ab"), TEXTS, st.integers(1, 5)), min_size=1, max_size=9),
    size=st.integers(8, 80),
    encoding=st.sampled_from([None, "latin-1"]),
)
def test_quoted__fields_of_any_text_are_skipped(tmp_path_factory, rows, size, encoding):
    lines = [
        f'u{n},{i},"{words.replace(chr(34), 2 * chr(34))}",{r}\n' for n, (i, words, r) in enumerate(rows)
    ]
    path = written(tmp_path_factory.mktemp("files"), "user,item,text,rating\n" + "".join(lines))
    right = sorted((f"u{n}", i, float(r), None) for n, (i, _, r) in enumerate(rows))
    for fast in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text, "BLOCK_BYTES", size)
            if fast:
                patch.setattr(text, "SHORT_FILE", -1)
            assert by_id(mf.read_ratings(path, encoding=encoding)) == right
