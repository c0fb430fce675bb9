"""Reading ratings: what is recognised, what is refused and how, and that nothing is lost on the way."""

import csv
import gzip
import io
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from tests.files import MARKET, matrix_file, mutated, write_file
from tests.helpers import examples
from tests.processes import run_python
from tests.samples import cells

RATED = {(196, 242): 3.0, (22, 302): 3.5, (196, 302): 1.0}

# the same three ratings, as each kind of text has them
TEXTS = {
    "u.data": "196\t242\t3\t881250949\n22\t302\t3.5\t891717742\n196\t302\t1\t878887116\n",
    "ratings.dat": "196::242::3::881250949\n22::302::3.5::891717742\n196::302::1::878887116\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n196,242,3.0,8812\n22,302,3.5,8917\n196,302,1.0,8788\n",
    "other order": "timestamp,rating,item_id,user_id\n8812,3,242,196\n8917,3.5,302,22\n8788,1,302,196\n",
    "quoted": '"user","item","title","rating"\n"196","242","A, b",3\n"22","302","""C""","3.5"\n196,302,,1\n',
    "semicolons": '"User-ID";"ISBN";"Book-Rating"\n"196";"242";"3"\n"22";"302";"3.5"\n"196";"302";"1"\n',
    "tabs, header": "user_id\titem_id\trating\n196\t242\t3\n22\t302\t3.5\n196\t302\t1\n",
    "no header": "196,242,3\n22,302,3.5\n196,302,1\n",
    "libmf": "196 242 3\n22 302 3.5\n196 302 1\n",
    "aligned": "  196   242  3.0\n   22   302  35e-1\n  196   302  1\n",
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["ratings", "ratings.npz", "ratings.mtx", "ratings.dat", "ratings.csv.gz"])
@pytest.mark.parametrize("kind", TEXTS)
def test_read_ratings__knows_text_by_its_content(tmp_path, kind, name, zipped):
    ratings = mf.read_ratings(write_file(tmp_path, TEXTS[kind], name, zipped))
    assert cells(ratings) == RATED
    assert ratings.user_ids.tolist() == [22, 196]
    assert ratings.item_ids.tolist() == [242, 302]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["ratings", "ratings.csv", "u.data"])
@pytest.mark.parametrize("kind", ["MatrixMarket", "csr", "csc", "coo"])
def test_read_ratings__knows_matrix_files_by_their_content(tmp_path, kind, name, zipped):
    matrix = sparse.coo_array(([3, 3.5, 1], ([3, 0, 3], [1, 2, 2])), shape=(5, 4))
    ratings = mf.read_ratings(write_file(tmp_path, matrix_file(kind, matrix), name, zipped))
    assert ratings.shape == (5, 4)
    assert (ratings.to_scipy() != matrix).nnz == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("coordinate real general\n% note\n2 3 2\n1 3 4.5\n2 1 -2\n", [[0, 0, 4.5], [-2, 0, 0]]),
        ("coordinate integer general\n2 3 1\n2 3 9\n", [[0, 0, 0], [0, 0, 9]]),
        ("coordinate real symmetric\n2 2 2\n1 1 4\n2 1 5\n", [[4, 5], [5, 0]]),
        ("coordinate pattern general\n2 2 2\n1 2\n2 1\n", [[0, 1], [1, 0]]),
        ("array real general\n2 2\n1\n0\n3\n4\n", [[1, 3], [0, 4]]),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_read_ratings__reads_every_kind_of_matrix_market(tmp_path, text, expected, newline):
    path = write_file(tmp_path, f"%%MatrixMarket matrix {text}".replace("\n", newline))
    np.testing.assert_array_equal(mf.read_ratings(path).to_scipy().toarray(), expected)


BAD_MARKETS = {
    "rest of a field": (f"{MARKET}3 3 1\n2 2 4oops\n", "line 3.*2 2 4oops"),
    "too many fields": (f"{MARKET}3 3 1\n2 2 4 1\n", "line 3.*2 2 4 1"),
    "rest of a field at the end": (f"{MARKET}3 3 1\n2 2 4oops", "line 3.*2 2 4oops"),
    "too many fields at the end": (f"{MARKET}3 3 2\n1 1 2\n2 2 4 1", "line 4.*2 2 4 1"),
    "zero byte": (f"{MARKET}3 3 2\n1 1 2\n2 2 4\0\n", "line 4"),
    "more cells than the shape has": ("%%MatrixMarket matrix array real general\n0 2\n1\n", ""),
}


@pytest.mark.parametrize(("text", "message"), BAD_MARKETS.values(), ids=BAD_MARKETS)
def test_read_ratings__survives_bad_matrix_market(tmp_path, text, message):
    path = write_file(tmp_path, text, "bad.mtx")
    run = run_python("import sys, mfkernel\nmfkernel.read_ratings(sys.argv[1])", path)
    assert run.returncode == 1
    assert re.search(rf"^ValueError: .*bad\.mtx.*{message}", run.stderr, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize(
    "end", ["", " general", " general\n", " general\n%\n3 3 2\n", " general\n3 3 2\n1 1 5"]
)
def test_read_ratings__names_a_matrix_market_file_that_ends_early(tmp_path, end):
    path = write_file(tmp_path, f"%%MatrixMarket matrix coordinate real{end}", "cut.mtx")
    with pytest.raises(ValueError, match=r"cut\.mtx"):
        mf.read_ratings(path)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["10", "9", "-3"], [-3, 9, 10]),
        ([f"{2**53 + 1}", f"{2**53}", f"{2**63 - 1}"], [2**53, 2**53 + 1, 2**63 - 1]),
        ([f"{2**64 + 1}", f"{2**64}", f"{2**64 + 2}"], [f"{2**64 + n}" for n in range(3)]),
        (["zoë", "Ann", "bob"], ["Ann", "bob", "zoë"]),
        (["1.5", "1.25", "1e3"], ["1.25", "1.5", "1e3"]),
    ],
    ids=["small", "big", "beyond int64", "strings", "no integers"],
)
@pytest.mark.parametrize("separator", [" ", "\t", "::", ","])
def test_read_ratings__keeps_the_ids_sorted(tmp_path, ids, expected, separator):
    rated = list(zip(ids, reversed(ids), [1.0, 2.0, 3.0], strict=True))
    lines = [separator.join(map(str, line)) for line in rated]
    ratings = mf.read_ratings(write_file(tmp_path, "\n".join(lines)), columns=(0, 1, 2))
    assert ratings.user_ids.tolist() == ratings.item_ids.tolist() == expected
    kind = type(expected[0])
    assert cells(ratings) == {(kind(user), kind(item)): value for user, item, value in rated}


def test_read_ratings__each_side_has_its_own_kind_of_ids(tmp_path):
    ratings = mf.read_ratings(write_file(tmp_path, "10::007::3\n9::7::4\n"))
    assert ratings.user_ids.tolist() == [9, 10]
    assert ratings.item_ids.tolist() == ["007", "7"]


@pytest.mark.slow
def test_read_ratings__takes_ids_of_any_script(tmp_path):
    program = """if True:
        import pathlib, sys, mfkernel
        for code in [*range(0x100, 0xD800, 0x101), *range(0xE000, 0x110000, 0x1001)]:
            if not chr(code).isspace():
                pathlib.Path(sys.argv[1]).write_text(f"{chr(code)} 2 3\\n", encoding="utf-8")
                assert mfkernel.read_ratings(sys.argv[1]).user_ids.tolist() == [chr(code)], hex(code)
    """
    run = run_python(program, tmp_path / "ids.txt")
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: "\n \n" + text.replace("\n", "\n\n\t\n") + "\n" * 3,
    ],
    ids=["CRLF", "CR", "BOM", "no newline at the end", "blank lines"],
)
def test_read_ratings__takes_lines_as_they_come(tmp_path, kind, change):
    assert cells(mf.read_ratings(write_file(tmp_path, change(TEXTS[kind])))) == RATED


def test_read_ratings__takes_many_blank_lines_at_the_end(tmp_path):
    assert mf.read_ratings(write_file(tmp_path, "1 2 3\n" + "\n" * 200_000)).nnz == 1


@pytest.mark.parametrize("values", [["4", "1e300"], ["0.1", "3.3"], ["16777217", "1"], ["0", "-0.5"]])
def test_read_ratings__keeps_ratings_exactly(tmp_path, values):
    ratings = mf.read_ratings(write_file(tmp_path, "".join(f"1 {n} {x}\n" for n, x in enumerate(values))))
    assert ratings.values.tolist() == [float(x) for x in values]


@pytest.mark.parametrize("line", ['1 4 2 "oh', '1::4::2::"oh', '1\t4\t2\t"oh', '1,4,2,5" disk'])
@pytest.mark.parametrize("user", ["1", "ann"])
def test_read_ratings__loses_no_line_to_an_open_quote(tmp_path, line, user):
    text = f"{line}\n{line.replace('4', '5')}\n{line.replace('4', '6')}\n".replace("1", user)
    assert mf.read_ratings(write_file(tmp_path, text), columns=(0, 1, 2)).nnz == 3


def test_read_ratings__takes_a_very_long_field(tmp_path):
    path = write_file(tmp_path, f"user,item,rating,review\nann,up,3,{'good ' * 30_000}\n")
    assert cells(mf.read_ratings(path)) == {("ann", "up"): 3.0}


BAD_LINES = {
    "endless id": (f"a b 3\n{'x' * 3000} b 4\n", 2, "xxx"),
    "underscore": ("1 2 3\n4 5 1_0\n", 2, "4 5 1_0"),
    "too few fields": ("1 2 3\n4 5\n", 2, "4 5"),
    "rating not a number": ("1 2 3\n\n4 5 good\n", 3, "4 5 good"),
    "first line": ("4 5 good\n1 2 3\n", 1, "4 5 good"),
    "nan": ("1 2 3\n4 5 nan\n", 2, "4 5 nan"),
    "nan, string ids": ("a b 3\nc d nan\n", 2, "c d nan"),
    "inf": ("1::2::3\n4::5::-inf\n", 2, "4::5::-inf"),
    "too large": ("1 2 3\n4 5 1e999\n", 2, "4 5 1e999"),
    "empty user": ("1,2,3\n,5,1\n", 2, ",5,1"),
    "empty item": ("a::b::3\nc::::1\n", 2, "c::::1"),
    "empty rating": ("1\t2\t3\n4\t5\t\n", 2, "4"),
    "after a header": ("\nuser,item,rating\n1,2,3\n\n4,5,x\n", 5, "4,5,x"),
    "undecodable id": (b"1 2 3\n4 caf\xe9 6\n", 2, "caf"),
    "undecodable rating": (b"1 2 3\n4 5 \xff\n", 2, "4 5"),
    "other separator": ("1,2,3\n4;5;3\n", 2, "4;5;3"),
    "far down": ("1 2 3\n" * 131_072 + "4 5 six\n", 131_073, "4 5 six"),
    "far below a header": ("user,item,rating\n" + "1,2,3\n" * 140_000 + "4,5\n1,2,3", 140_002, "4,5"),
    "far down, blank lines": ("1 2 3\n" + "\n" * 131_080 + "4 5 six\n", 131_082, "4 5 six"),
    "MatrixMarket field": ("%%MatrixMarket matrix coordinate real general\n%\n3 3 1\n2 x 3\n", 4, "2 x 3"),
    "MatrixMarket index": ("%%MatrixMarket matrix coordinate real general\n3 3 1\n2 9 3\n", 3, "2 9 3"),
    "MatrixMarket nan": ("%%MatrixMarket matrix coordinate real general\n3 3 1\n2 2 nan\n", 3, "2 2 nan"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("text", "line", "content"), BAD_LINES.values(), ids=BAD_LINES)
def test_read_ratings__names_file_line_and_content(tmp_path, text, line, content, zipped):
    path = write_file(tmp_path, text, "stars.txt", zipped)
    with pytest.raises(ValueError, match="stars.txt") as error:
        mf.read_ratings(path, duplicates="last")
    assert f"line {line}" in str(error.value).lower().replace(",", "")
    assert content in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("policy", "expected"), [("sum", 10.0), ("mean", 2.5), ("last", 2.0)])
@pytest.mark.parametrize("kind", ["text", "MatrixMarket"])
def test_read_ratings__merges_duplicates_as_asked(tmp_path, policy, expected, kind):
    head = "%%MatrixMarket matrix coordinate real general\n2 2 5\n" if kind == "MatrixMarket" else ""
    path = write_file(tmp_path, head + "2 1 4\n1 2 5\n2 1 3\n2 1 1\n2 1 2\n")
    assert mf.read_ratings(path, duplicates=policy).values.tolist() == [5.0, expected]


@pytest.mark.parametrize("ids", [("77", "88"), ("ann", "up")])
def test_read_ratings__counts_and_names_duplicates(tmp_path, ids):
    user, item = ids
    path = write_file(tmp_path, f"1 2 5\n{user} {item} 4\n" + f"{user} {item} 3\n" * 3, "twice.txt")
    with pytest.raises(ValueError, match=rf"twice\.txt.*\b3\b.*{user}\b.*{item}\b.*duplicates="):
        mf.read_ratings(path)


def test_read_ratings__names_the_nearest_policy(tmp_path):
    with pytest.raises(ValueError, match="'mean'"):
        mf.read_ratings(write_file(tmp_path, TEXTS["libmf"]), duplicates="maen")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "text", ["", "\n", "\ufeff", " \r\n\t\r\n", "user,item,rating\n", "user,item,rating\n\n\n"]
)
def test_read_ratings__refuses_a_file_without_ratings(tmp_path, text, zipped):
    with pytest.raises(ValueError, match=r"void\.csv.*no ratings"):
        mf.read_ratings(write_file(tmp_path, text, "void.csv", zipped))


def test_read_ratings__leaves_errors_of_the_system_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        mf.read_ratings(tmp_path / "missing.csv")
    with pytest.raises(OSError, match=tmp_path.name):
        mf.read_ratings(tmp_path)


@pytest.mark.parametrize("kind", ["libmf", "MatrixMarket"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "checksum", "rubbish behind"])
def test_read_ratings__names_a_damaged_gzip(tmp_path, kind, damage):
    text = "".join(f"{n + 1} {n * 7 % 31 + 1} {n % 5 + 1}\n" for n in range(2000))
    head = "%%MatrixMarket matrix coordinate real general\n2000 31 2000\n" if kind == "MatrixMarket" else ""
    data = bytearray(gzip.compress((head + text).encode()))
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "rubbish behind":
        data += b"rubbish"
    else:
        place = len(data) // 2 if damage == "flipped" else len(data) - 8
        data[place : place + 4] = bytes(255 - x for x in data[place : place + 4])
    with pytest.raises(ValueError, match=r"hurt\.gz"):
        mf.read_ratings(write_file(tmp_path, bytes(data), "hurt.gz"))


def test_read_ratings__refuses_archives_that_hold_no_sparse_matrix(tmp_path):
    mf.Factors(np.ones((2, 1)), np.ones((1, 2))).save(tmp_path / "model.npz")
    np.savez(tmp_path / "pickled.npz", np.array([{}], object))
    write_file(tmp_path, b"PK\x03\x04 and no more", "broken.npz")
    for name in ("model.npz", "pickled.npz", "broken.npz"):
        with pytest.raises(ValueError, match=name) as error:
            mf.read_ratings(tmp_path / name)
        assert "BytesIO" not in str(error.value)


def test_read_ratings__asks_for_columns_that_it_does_not_know(tmp_path):
    path = write_file(tmp_path, "wer,was,sterne\n1,2,3\n", "deutsch.csv")
    with pytest.raises(ValueError, match=r"deutsch\.csv.*line 1.*wer,was,sterne.*columns="):
        mf.read_ratings(path)
    assert cells(mf.read_ratings(path, columns=("was", "wer", "sterne"))) == {(2, 1): 3.0}


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,rating,b,c\n0,3,242,196\n0,3.5,302,22\n0,1,302,196\n", ("c", "b", "rating")),
        ("a,b,c,d\n0,3,242,196\n0,3.5,302,22\n0,1,302,196\n", (3, 2, 1)),
        ("a,b,c,d\n0,3,242,196\n0,3.5,302,22\n0,1,302,196\n", ("d", 2, "b")),
        ("3 242 0 196\n3.5 302 0 22\n1 302 0 196\n", (3, 1, 0)),
        ("3::242::0::196\n3.5::302::0::22\n1::302::0::196\n", [3, 1, 0]),
    ],
)
def test_read_ratings__takes_columns_by_name_or_position(tmp_path, text, columns):
    assert cells(mf.read_ratings(write_file(tmp_path, text), columns=columns)) == RATED


@pytest.mark.parametrize("columns", [("user", "movie", "rating"), (0, 1, 9), (0, 9, 2), (0, 1), ("user",)])
def test_read_ratings__refuses_columns_that_are_not_there(tmp_path, columns):
    path = write_file(tmp_path, "user,item,rating\n1,2,3\n")
    with pytest.raises(ValueError, match="column"):
        mf.read_ratings(path, columns=columns)


IDS = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters=',;:|"'), min_size=1, max_size=6
)
IDS = IDS.filter(lambda text: not set(text) <= {"#", "%"})  # which begins a comment
FINITE = st.floats(allow_nan=False, allow_infinity=False)
RATINGS = st.dictionaries(st.tuples(IDS, IDS), FINITE, min_size=1, max_size=12)


@given(rated=RATINGS, form=st.sampled_from([" ", "\t", "::", "csv"]), zipped=st.booleans())
@example(rated={("a", "b"): 1e300}, form=" ", zipped=False)
@example(rated={("{", "}"): 0.0}, form=" ", zipped=False)
def test_read_ratings__reads_back_what_was_written(tmp_path_factory, rated, form, zipped):
    text = io.StringIO()
    if form == "csv":
        writer = csv.writer(text)
        writer.writerow(["rating", "item", "user"])
        writer.writerows([value, item, user] for (user, item), value in rated.items())
    else:
        text.writelines(f"{user}{form}{item}{form}{value!r}\n" for (user, item), value in rated.items())
    path = write_file(tmp_path_factory.getbasetemp(), text.getvalue(), "written", zipped)
    ratings = mf.read_ratings(path, columns=None if form == "csv" else (0, 1, 2))
    assert {(str(user), str(item)): value for (user, item), value in cells(ratings).items()} == rated
    assert ratings.user_ids.tolist() == sorted(ratings.user_ids.tolist())


MATRIX = sparse.coo_array(([3, 3.5, 1], ([3, 0, 3], [1, 2, 2])), shape=(5, 4))
VALID = [text.encode() for text in TEXTS.values()] + [
    matrix_file(kind, MATRIX) for kind in ("MatrixMarket", "csr")
]
VALID += [gzip.compress(data, mtime=0) for data in VALID]


@examples(400)
@given(
    data=mutated(VALID)
    | st.binary(max_size=60)
    | st.text(' \t,;:"\r\n\0019.ae-', max_size=60).map(str.encode)
)
def test_read_ratings__yields_ratings_or_a_plain_error(tmp_path_factory, data):
    path = write_file(tmp_path_factory.getbasetemp(), data, "any")
    try:
        ratings = mf.read_ratings(path, duplicates="last")
    except (ValueError, OSError):
        return
    assert isinstance(ratings, mf.Ratings)
    assert np.isfinite(ratings.values).all()
