"""Files as the world writes them, and files that no program should have written."""

import contextlib
import gzip
import io
import json
import os
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import mmwrite

import mfkernel as mf
from mfkernel.data.files.form import Form
from mfkernel.data.files.layout import Layout, find_layout
from mfkernel.data.files.lines import Lines
from mfkernel.data.files.streams import Stream
from mfkernel.data.files.text import NotPlainError, TextRows, parse
from tests.files import MARKET, matrix_file, mutated, npy_of, write_file, zip_of
from tests.helpers import examples
from tests.processes import TracedMemory, run_python
from tests.samples import cells

RATINGS = "user,item,rating\n1,2,3\n"


# what is in a text: content, options, ratings by user and item
TEXTS = {
    "rows that a spreadsheet left empty": (
        "User-ID,ISBN,Book-Rating\n1,A1,5\n,,\n2,A2,3\n,,\n , ,\n",
        {},
        {(1, "A1"): 5.0, (2, "A2"): 3.0},
    ),
    "empty rows first": (";;\nuser;item;rating\n;;\n1;2;3\n", {}, {(1, 2): 3.0}),
    "empty rows, quoted": ('"user","item","rating"\n"","",""\n1,2,3\n', {}, {(1, 2): 3.0}),
    "Latin-1": (
        "user;item;rating\nJosé;1;5\n".encode("latin-1"),
        {"encoding": "latin-1"},
        {("José", 1): 5.0},
    ),
    "Shift JIS": ("user;item;rating\n太郎;1;5\n".encode("cp932"), {"encoding": "cp932"}, {("太郎", 1): 5.0}),
    "UTF-16": ("user,item,rating\nJosé,2,3\n".encode("utf-16"), {}, {("José", 2): 3.0}),
    "UTF-16, big end first": (("\ufeff" + RATINGS).encode("utf-16-be"), {}, {(1, 2): 3.0}),
    "UTF-32": (RATINGS.encode("utf-32"), {}, {(1, 2): 3.0}),
    "UTF-16 without a mark": (RATINGS.encode("utf-16-le"), {"encoding": "utf-16-le"}, {(1, 2): 3.0}),
    "a mark beside encoding=": (RATINGS.encode("utf-8-sig"), {"encoding": "utf-8"}, {(1, 2): 3.0}),
    "bytes of other encodings elsewhere": (b"1,2,3,caf\xe9\n", {"columns": (0, 1, 2)}, {(1, 2): 3.0}),
    "% comments": (
        "% bip weighted\n% 2 3 4\n1 2 3 947203200\n% 7 8 9\n4 5 6 947203200\n",
        {},
        {(1, 2): 3.0, (4, 5): 6.0},
    ),
    "% header": ("% item user rating\n1 2 3\n", {}, {(2, 1): 3.0}),
    "% in ids": ("%ann %1 5\n5%,x 6 4\n", {}, {("%ann", "%1"): 5.0, ("5%,x", "6"): 4.0}),
    "comments below a header": ("user,item,rating\n# a,b,c\n\n%\n1,2,3\n", {}, {(1, 2): 3.0}),
    "sep=, header": ("sep=;\nuser;item;rating\n1;2;3\n", {}, {(1, 2): 3.0}),
    "SEP=, quoted": ('"SEP=,"\r\n1,2;3,4\r\n', {}, {(1, "2;3"): 4.0}),
    "sep=, tab": ("\ufeffsep=\t\na,b\tc\t3\n", {}, {("a,b", "c"): 3.0}),
    "semicolons, commas in a text": (
        "user;item;rating;title\n1;2;3;Good, Bad, Ugly\n",
        {},
        {(1, 2): 3.0},
    ),
    "semicolons, more commas in the header": ("user;item;rating;a,b,c\n1;2;3;4\n", {}, {(1, 2): 3.0}),
    "times": ("1,2,3,100000000\n1,3,4,1e9\n2,3,1,1112486027.5\n", {}, {(1, 2): 3, (1, 3): 4, (2, 3): 1}),
    "milliseconds": ("1 2 3 1112486027000\n", {}, {(1, 2): 3.0}),
    "dates": (
        "1,2,3,2005-09-06\n1,3,4,2005-09-06T12:00:00\n2,2,1,2005-09-06 12:00:00\n2,3,2,9/6/2005\n2,4,1,\n",
        {},
        {(1, 2): 3.0, (1, 3): 4.0, (2, 2): 1.0, (2, 3): 2.0, (2, 4): 1.0},
    ),
    "negative ids that were named": ("-1,-2,3,4\n", {"columns": (0, 1, 2)}, {(-1, -2): 3.0}),
    "negative ids below a header": ("user,item,rating,n\n-1,-2,3,4\n", {}, {(-1, -2): 3.0}),
    "a header without a name for the index": (
        ",item,rating\n1,2,3\n",
        {"columns": (0, 1, 2)},
        {(1, 2): 3.0},
    ),
    "# header": ("# user item rating\n1 2 3\n", {}, {(1, 2): 3.0}),
    "# header in another order": ("#item\tuser\trating\n1\t2\t3\n", {}, {(2, 1): 3.0}),
    "# header, named": ("# wer was sterne\n1 2 3\n", {"columns": ("was", "wer", "sterne")}, {(2, 1): 3.0}),
    "# comments": ("# by hand\n#\n1 2 3\n# 7 8 9\n# end", {}, {(1, 2): 3.0}),
    "# in a header below a comment": ("# user, item, rating\nitem,user,rating\n1,2,3\n", {}, {(2, 1): 3.0}),
    "# before a tab": ("#\t1\t5\n##\t1\t4\n", {}, {("#", 1): 5.0, ("##", 1): 4.0}),
    "# in ids": ("#ann,#1,5\nbob,#2,4\n", {}, {("#ann", "#1"): 5.0, ("bob", "#2"): 4.0}),
    "RecBole": ("user_id:token\titem_id:token\trating:float\n196\t242\t3\n", {}, {(196, 242): 3.0}),
    "RecBole, named": (
        "item_id:token\tuser_id:token\trating:float\n196\t242\t3\n",
        {"columns": ("user_id", "item_id", "rating")},
        {(242, 196): 3.0},
    ),
    "header in capitals": ("USER ID,Item.ID,RATING\n1,2,3\n", {}, {(1, 2): 3.0}),
    "header in capitals, named": ("WER,WAS,WIE\n1,2,3\n", {"columns": ("wer", "was", "wie")}, {(1, 2): 3.0}),
    "quoted header, white space": ('"user" "item" "rating"\n1 2 3\n', {}, {(1, 2): 3.0}),
    "quoted, white space": ('"a b" 7 5\n"c ""d""" 8 3\n', {}, {("a b", 7): 5.0, ('c "d"', 8): 3.0}),
    "quoted, white space and commas": ('"b, a, c" 7 5\n', {}, {("b, a, c", 7): 5.0}),
    "quoted, tabs": ('"a\tb"\t7\t5\n', {}, {("a\tb", 7): 5.0}),
    "quoted beyond the limit of csv": (
        f'user,item,rating,text\n1,2,3,"{"x, " * 50_000}"\n',
        {},
        {(1, 2): 3.0},
    ),
    "R with row names": (
        '"user" "item" "rating"\n"1" "a b" 7 5\n"2" "c d" 8 3\n',
        {},
        {("a b", 7): 5.0, ("c d", 8): 3.0},
    ),
    "R with row names, text": ('"user"\t"item"\t"rating"\n"r1"\t"a"\t"b"\t5\n', {}, {("a", "b"): 5.0}),
    "separators at the end": ("1,2,3,,,\n", {}, {(1, 2): 3.0}),
    "a no-break space": ("u\u00a01 7 5\nu\u00a02 7 3\n", {}, {("u\u00a01", 7): 5.0, ("u\u00a02", 7): 3.0}),
    "separators that only Unicode knows": (
        "a\x85b 1 5\nc\u2028d 1 4\ne\x1cf 1 3\ng\x1eh 1 2\n",
        {},
        {("a\x85b", 1): 5.0, ("c\u2028d", 1): 4.0, ("e\x1cf", 1): 3.0, ("g\x1eh", 1): 2.0},
    ),
    "form feeds": ("1\f2\v3\n", {}, {(1, 2): 3.0}),
    "decimal ids that were named": ("1.5,2.5,3\n", {"columns": (0, 1, 2)}, {("1.5", "2.5"): 3.0}),
    "decimal ids below a header": ("user,item,rating\n1.5,2.5,3\n", {}, {("1.5", "2.5"): 3.0}),
    "wide, named": ("1,2,3,4,5,6\n", {"columns": (5, 4, 3)}, {(6, 5): 4.0}),
    "numbered lines, named": (
        "".join(f"{n},7{n},8,{n}\n" for n in range(12)),
        {"columns": (1, 2, 3)},
        {(int(f"7{n}"), 8): float(n) for n in range(12)},
    ),
    "zip": (zip_of({"ratings.csv": RATINGS}), {}, {(1, 2): 3.0}),
    "zip of a Mac": (
        zip_of({"a/": "", "a/b.csv": RATINGS, "__MACOSX/a/._b.csv": b"\0\5"}),
        {},
        {(1, 2): 3.0},
    ),
    "zip of bzip2": (zip_of({"a": RATINGS}, zipfile.ZIP_BZIP2), {}, {(1, 2): 3.0}),
    "zip of LZMA": (zip_of({"a": RATINGS}, zipfile.ZIP_LZMA), {}, {(1, 2): 3.0}),
    "zip in gzip": (gzip.compress(zip_of({"ratings.csv": RATINGS})), {}, {(1, 2): 3.0}),
}


@pytest.mark.parametrize(("content", "options", "expected"), TEXTS.values(), ids=TEXTS)
def test_read_ratings__takes_text_of_the_world(tmp_path, content, options, expected):
    assert cells(mf.read_ratings(write_file(tmp_path, content), **options)) == expected


@pytest.mark.parametrize("kind", [np.array, list, lambda x: [np.int64(n) for n in x]])
def test_read_ratings__takes_columns_of_any_sequence(tmp_path, kind):
    assert cells(mf.read_ratings(write_file(tmp_path, "9,1,2,3\n"), columns=kind([2, 1, 3]))) == {(2, 1): 3.0}


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ("abc", ValueError),
        ((0, 1, 1), ValueError),
        ((0, 1, -1), ValueError),
        ((0, 1, True), TypeError),
        (7, TypeError),
    ],
)
def test_read_ratings__refuses_columns_that_are_not_three(tmp_path, columns, error):
    with pytest.raises(error, match="columns must be three"):
        mf.read_ratings(write_file(tmp_path, "a,b,c\n1,2,3\n"), columns=columns)


def test_read_ratings__refuses_a_column_name_that_occurs_twice(tmp_path):
    with pytest.raises(ValueError, match="once"):
        mf.read_ratings(write_file(tmp_path, "a,a,c,d\n1,2,3,4\n"), columns=("a", "c", "d"))


@pytest.mark.parametrize("encoding", ["klingon", "hex", "undefined", "", "idna", "punycode"])
def test_read_ratings__refuses_encodings_that_give_no_text(tmp_path, encoding):
    with pytest.raises(ValueError, match="encoding must be one of"):
        mf.read_ratings(write_file(tmp_path, RATINGS), encoding=encoding)


JOKES = "4,-7.82,8.79,-9.66,-8.16\n3,4.08,-0.29,99,4.37\n"

# what is refused: content, options, words of the message
REFUSED = {
    "wide table": (JOKES, {}, ["line 1", "5 fields", "columns=", "array"]),
    "wide table of four": ("4,3,8.79,-9.66\n", {}, ["line 1", "time", "columns=", "array"]),
    "wide table of four, far down": (
        "1,2,3,881250949\n" * 100_000 + "3,4,5,99\n",
        {},
        ["line 100001", "time", "columns="],
    ),
    "wide table of decimals of four": (
        "4,3,8.79,881250949\n3,-4.08,-0.29,\n",
        {},
        ["line 2", "-4.08", "columns="],
    ),
    "wide table of whole numbers": ("4,-7,8,-9\n3,4,-1,99\n", {}, ["line 1", "time", "columns=", "array"]),
    "wide table of whole numbers, three": ("4,7,8\n3,-4,-1\n", {}, ["line 2", "negative", "columns="]),
    "negative users": ("-4\t7\t8\t881250949\n", {}, ["line 1", "negative", "columns="]),
    "wide below a short line": ("1 2 3\n" + "1 2 3 4 5\n", {}, ["line 2", "5 fields", "array"]),
    "wide with a gap": ("1,2,NA,4,5\n1,2,3,4,5\n", {}, ["line 1", "5 fields", "array"]),
    "exponents": ("1e-05 2 3\n", {}, ["line 1", "decimal", "columns="]),
    "text behind": ("1,2,3,good\n", {}, ["line 1", "time", "columns="]),
    "nan": ("1,2,3\n1,3,nan\n", {}, ["line 2", "finite rating in column 3", "missing ('nan')"]),
    "NA": ("1 2 3\n1 3 NA\n", {}, ["line 2", "column 3", "missing ('NA')"]),
    "NA first": ("1 2 NA\n1 3 4\n", {}, ["line 1", "column 3", "missing ('NA')"]),
    "NA first, named": ("1,2,NA\n1,3,4\n", {"columns": (0, 1, 2)}, ["line 1", "missing ('NA')"]),
    "empty first, named": ("1,2,\n1,3,4\n", {"columns": (0, 1, 2)}, ["line 1", "missing ('')"]),
    "no number first, named": ("1,2,good\n1,3,4\n", {"columns": (0, 1, 2)}, ["line 1", "in column 3"]),
    "empty": ("item,rating,user\n1,3,4\n1,,2\n", {}, ["line 3", "column 2", "missing ('')"]),
    "infinite": ("1::2::-inf\n", {}, ["line 1", "finite", "'-inf' is infinite"]),
    "beyond float64": ("a,b,3e400\n", {}, ["line 1", "finite", "'3e400' is infinite or beyond float64"]),
    "decimal comma": ("user;item;rating\n1;2;3\n1;3;3,5\n", {}, ["line 3", "'3,5' has a decimal comma"]),
    "decimal comma first": ("1;2;3,5\n", {}, ["line 1", "'3,5' has a decimal comma"]),
    "decimal comma, time": ("1;2;3,5;881250949\n", {}, ["line 1", "'3,5' has a decimal comma"]),
    "decimal comma, quoted": ('1,2,"3,5"\n', {}, ["line 1", "'3,5' has a decimal comma"]),
    "decimal comma, space": ("1 2 3\n1 3 3,5\n", {}, ["line 2", "'3,5' has a decimal comma"]),
    "decimal commas, wide": ("1;2;3,5;4,1\n", {}, ["line 1", "time", "array"]),
    "two users": ("user,user,item,rating\n1,2,3,4\n", {}, ["line 1", "one column for the user", "2"]),
    "two names for users": (
        "user_id,userId,item,rating\n1,2,3,4\n",
        {},
        ["line 1", "one column for the user", "'user_id', 'userId'", "columns="],
    ),
    "two items, commented": (
        "# user item movie-id rating\n1 2 3 4\n",
        {},
        ["line 1", "one column for the item", "'item', 'movie-id'"],
    ),
    "two ratings": ("user,item,rating,score\n1,2,3,4\n", {}, ["line 1", "'rating', 'score'"]),
    "sep=+": ("sep=+\n1|2|3\n", {}, ["line 1", "semicolon"]),
    "comments without end": ("# a b c\n" * 20_000 + "1 2 3\n", {}, ["line 18725", "131,072", "comments"]),
    "% comments without end": ("%\n" * 140_000 + "1 2 3\n", {}, ["line 131073", "131,072", "comments"]),
    "wide table of three": ("4 -7.82 8.79\n", {}, ["line 1", "decimal", "columns="]),
    "date and time": ("1 2 3 2001-01-01 12:00:00\n", {}, ["line 1", "5 fields", "columns="]),
    "decimal far down": ("1 2 3\n" * 200_000 + "1 .5 3\n", {}, ["line 200001", "1 .5 3"]),
    "numbers of the lines": (
        "".join(f'"{n}" {n * 7 % 31} 3 4\n' for n in range(1, 13)),
        {},
        ["line 1", "time", "counted from 0"],
    ),
    "row names or a time": ("user item rating\n1 2 3 8812\n", {}, ["line 2", "3 fields", "columns="]),
    "# header that does not fit": ("# item user rating time\n1 2 3\n", {}, ["line 1", "columns="]),
    "Latin-1": ("user;item;rating\nJosé;1;5\n".encode("latin-1"), {}, ["line 2", "not UTF-8", "encoding="]),
    "Latin-1 header": (
        "usér;item;rating\nA;1;5\n".encode("latin-1"),
        {},
        ["line 1", "not UTF-8", "encoding="],
    ),
    "UTF-8 is not ASCII": ("é 1 5\n", {"encoding": "ascii"}, ["line 1", "not ASCII", "encoding="]),
    "UTF-16, cut": (RATINGS.encode("utf-16")[:-1], {}, ["line 2", "UTF-16", "mark"]),
    "UTF-16 without a mark": (RATINGS.encode("utf-16-le"), {}, ["line 1", "NUL", "encoding='utf-16-le'"]),
    "NUL in an id": ("a 1 3\na\0b 2 3\n", {}, ["line 2", "NUL"]),
    "NUL at the end of an id": ("a 1 3\na\0 2 3\n", {}, ["line 2", "NUL"]),
    "NUL beside a number": ("1 1 3\n1\0 2 3\n", {}, ["line 2", "NUL"]),
    "a no-break space in a rating": (
        "1 2 \u00a03\n",
        {"columns": (1, 0, 2)},
        ["line 1", "rating in column 3"],
    ),
    "digits of other scripts": ("1 2 3\n1 3 ٣\n", {}, ["line 2"]),
    "line without end": ("1 2 3\n" + "x" * 2_000_000, {}, ["line 2", "1,048,576"]),
    "long line": ("1 2 3\n" + "x" * 1_048_577 + "\n1 3 4\n", {}, ["line 2", "1,048,576"]),
    "zip of two": (zip_of({"a.csv": RATINGS, "b.csv": RATINGS}), {}, ["2 files", "a.csv", "unzip"]),
    "zip of none": (zip_of({}), {}, ["0 files"]),
    "zip, broken": (b"PK\x03\x04 and so on", {}, ["damaged", "unzip it first"]),
    "zip, without a name": (zip_of({"abc": RATINGS}).replace(b"abcPK", b"\0\0\0PK"), {}, ["damaged"]),
    "zip with a password": (
        zip_of({"a": RATINGS}).replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        {},
        ["encrypted", "unzip"],
    ),
    "zip of an unknown method": (
        zip_of({"a": RATINGS}, zipfile.ZIP_LZMA).replace(b"\x0e\0", b"\x62\0"),  # PPMd
        {},
        ["deflated", "LZMA", "unzip"],
    ),
    "zip of gzip": (zip_of({"a.gz": gzip.compress(b"1 2 3\n")}), {}, ["gzip", "unpack"]),
    "Excel": (zip_of({"[Content_Types].xml": "", "xl/workbook.xml": ""}), {}, ["Office", "CSV"]),
    "bzip2": (b"BZh91AY&SY\0\0\0", {}, ["damaged"]),
    "Parquet": (b"PAR1\x15\x04\x15", {}, ["Parquet"]),
    "NumPy": (npy_of(np.ones((3, 3))), {}, ["NumPy"]),
    "complex": ("%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 1 1\n", {}, ["line 1", "real"]),
    "hermitian": (
        "%%MatrixMarket matrix coordinate complex hermitian\n1 1 1\n1 1 1 1\n",
        {},
        ["line 1", "real"],
    ),
    "skew diagonal": (
        "%%MatrixMarket matrix coordinate real skew-symmetric\n2 2 1\n1 1 1\n",
        {},
        ["line 3", "diagonal"],
    ),
    "symmetric, not square": (
        "%%MatrixMarket matrix array real symmetric\n2 3\n1\n",
        {},
        ["line 2", "as many"],
    ),
    "more entries than declared": (MARKET + "3 3 1\n1 1 1\n2 2 2\n", {}, ["more entries"]),
    "fewer entries than declared": (MARKET + "3 3 9\n1 1 1\n2 2 2\n", {}, ["2 entries", "9 by its head"]),
    "quoted MatrixMarket": (MARKET + '3 3 1\n"1" 1 1\n', {}, ["line 3"]),
}


@pytest.mark.parametrize(("content", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_read_ratings__says_what_is_wrong_and_what_to_do(tmp_path, content, options, words):
    path = write_file(tmp_path, content, "stars.txt")
    with pytest.raises(ValueError, match="stars.txt") as error:
        mf.read_ratings(path, **{"duplicates": "last"} | options)
    assert [word for word in words if word not in str(error.value)] == []
    assert "\n" not in str(error.value)
    assert "columns=(0, 1, 2)" not in str(error.value)  # which would take what has been refused
    assert len(str(error.value)) < 900


@pytest.mark.parametrize("separator", [",", "\t", "::"])
@pytest.mark.slow
def test_read_ratings__takes_integers_and_text_far_apart(tmp_path, separator):
    """Ids of early lines, read as numbers, and those of late ones, read as text, are the same ids."""
    lines = [f"{n % 900}{separator}{n // 900}{separator}1\n" for n in range(200_000)]
    lines += [f"7{separator}{n}x{separator}2\n" for n in range(3)]
    ratings = mf.read_ratings(write_file(tmp_path, "".join(lines)))
    assert ratings.user_ids.tolist() == list(range(900))
    expected = {(n % 900, str(n // 900)): 1.0 for n in range(200_000)} | {(7, f"{n}x"): 2.0 for n in range(3)}
    assert cells(ratings) == expected


@pytest.mark.parametrize("last", [f"{2**63}", "+7", "007"])
def test_read_ratings__one_id_that_is_no_int64_makes_all_text(tmp_path, last):
    ratings = mf.read_ratings(write_file(tmp_path, f"7 1 1\n9 1 2\n{last} 1 3\n"))
    assert cells(ratings) == {("7", 1): 1.0, ("9", 1): 2.0, (last, 1): 3.0}


SQUARE = np.array([[0, 2, 0.0, 1], [2, 4, 5, 0], [0, 5, 0, 3], [1, 0, 3, 6]])
SKEW = np.tril(SQUARE, -1) - np.tril(SQUARE, -1).T
MATRICES = {"general": np.triu(SQUARE)[:3], "symmetric": SQUARE, "skew-symmetric": SKEW}


@pytest.mark.parametrize("make", [np.asarray, sparse.coo_array], ids=["array", "coordinate"])
@pytest.mark.parametrize("field", ["real", "double", "integer", "unsigned-integer", "pattern"])
@pytest.mark.parametrize("symmetry", MATRICES)
def test_read_ratings__reads_what_scipy_writes(tmp_path, make, field, symmetry):
    matrix = MATRICES[symmetry]
    file = io.BytesIO()
    mmwrite(file, make(matrix), field="real" if field == "double" else field, symmetry=symmetry)
    head, _, rest = file.getvalue().partition(b"\n")
    if field == "double":  # of other programs
        head = head.replace(b"real", b"double")
    ratings = mf.read_ratings(write_file(tmp_path, head + b"\n" + rest))
    assert symmetry.encode() in head
    assert ratings.nnz == np.count_nonzero(matrix)
    expected = np.sign(matrix) if b"pattern" in head else matrix
    np.testing.assert_array_equal(ratings.to_scipy().toarray(), expected)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u4"])
@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_read_ratings__reads_each_format_of_npz(tmp_path, kind, dtype, compressed):
    matrix = sparse.coo_array(np.array([[0, 2, 0], [3, 0, 0], [0, 0, 4], [0, 5, 0]], dtype))
    path = write_file(tmp_path, matrix_file(kind, matrix, compressed))
    np.testing.assert_array_equal(mf.read_ratings(path).to_scipy().toarray(), matrix.toarray())


def test_read_ratings__reads_an_old_npz(tmp_path):
    """Before SciPy 1.0 the format was text and ``_is_array`` was not there."""
    file = io.BytesIO()
    np.savez(file, format="coo", shape=(2, 3), row=[0, 1], col=[2, 0], data=[4.5, 2.0])
    path = write_file(tmp_path, file.getvalue())
    assert mf.read_ratings(path).to_scipy().toarray().tolist() == [[0, 0, 4.5], [2, 0, 0]]


COO = {
    "format.npy": npy_of(np.array(b"coo")),
    "shape.npy": npy_of(np.array([2, 3])),
    "row.npy": npy_of(np.array([0, 1])),
    "col.npy": npy_of(np.array([2, 0])),
    "data.npy": npy_of(np.array([4.5, 2.0])),
}
CSR = COO | {
    "format.npy": npy_of(np.array(b"csr")),
    "indices.npy": npy_of(np.array([2, 0])),
    "indptr.npy": npy_of(np.array([0, 1, 2])),
}


def test_read_ratings__reads_an_npz_of_foreign_byte_order(tmp_path):
    foreign = {
        "row.npy": npy_of(np.array([0, 1], ">i8")),
        "col.npy": npy_of(np.array([2, 0], ">i4")),
        "data.npy": npy_of(np.array([4.5, 2.0], ">f8")),
    }
    path = write_file(tmp_path, zip_of(COO | foreign))
    assert mf.read_ratings(path).to_scipy().toarray().tolist() == [[0, 0, 4.5], [2, 0, 0]]


def with_sizes(archive: bytes, stored: bytes, declared: int) -> bytes:
    """Declare another size of the first member, in both places where a zip archive has it."""
    changed = archive
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = changed.index(signature) + at
        assert changed[start : start + 4] == struct.pack("<I", len(stored))
        changed = changed[:start] + struct.pack("<I", declared) + changed[start + 4 :]
    return changed


def deep(depth: int) -> bytes:
    """Return an array whose header is an expression of some depth."""
    header = ("{'descr': " + "(" * depth + "'<f8'" + ")" * depth + ", }").encode().ljust(3000)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


# archives that lie, or cost far more than their size
BAD_ARCHIVES = {
    "shape in the header": COO | {"data.npy": npy_of(np.array([4.5, 2.0]), (2 * 10**9,))},
    "shape beyond any": COO | {"data.npy": npy_of(np.array([4.5, 2.0]), (2**62, 2**62))},
    "no entries, endless": COO | {"data.npy": npy_of(np.empty(0), (0, 2**62))},
    "header without end": COO | {"data.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"},
    "deep header": COO | {"data.npy": deep(1000)},
    "objects": COO | {"data.npy": npy_of(np.array([4.5, 2.0])).replace(b"<f8", b"|O8")},
    "too few bytes": COO | {"data.npy": npy_of(np.array([4.5, 2.0]))[:-3]},
    "bytes left over": COO | {"data.npy": npy_of(np.array([4.5, 2.0])) + b"abc"},
    "rows": COO | {"shape.npy": npy_of(np.array([4 * 10**8, 3]))},
    "columns": CSR | {"shape.npy": npy_of(np.array([2, 10**12]))},
    "negative": COO | {"shape.npy": npy_of(np.array([-2, 3]))},
    "three dimensions": COO | {"shape.npy": npy_of(np.array([2, 3, 4]))},
    "decimal places": COO | {"row.npy": npy_of(np.array([0.0, 1.0]))},
    "places outside": COO | {"row.npy": npy_of(np.array([0, 9]))},
    "indptr beyond": CSR | {"indptr.npy": npy_of(np.array([0, 10**12, 2]))},
    "indptr beyond, blocks": CSR
    | {
        "format.npy": npy_of(np.array(b"bsr")),
        "data.npy": npy_of(np.ones((2, 1, 1))),
        "indptr.npy": npy_of(np.array([0, 10**10, 2])),
    },
    "unknown format": COO | {"format.npy": npy_of(np.array(b"lil"))},
    "complex": COO | {"data.npy": npy_of(np.array([4j, 2.0]))},
    "text": COO | {"data.npy": npy_of(np.array(["a", "b"]))},
    "no data": {name: content for name, content in COO.items() if name != "data.npy"},
    "zeros": COO | {"data.npy": npy_of(np.zeros(2), (10**7,)) + bytes(8 * 10**7 - 16)},
    "zeros as text": {"ratings.csv": b"1 2 3\n" + bytes(3 * 10**7)},
    "a rating again and again": {"ratings.csv": b"1 2 3\n" * 5 * 10**6},
}


def bad_markets() -> dict[str, str]:
    return {
        "rows": f"{MARKET}400000000 3 1\n1 1 1\n",
        "columns": f"{MARKET}3 400000000 1\n1 1 1\n",
        "endless rows": f"{MARKET}{10**17} 3 1\n1 1 1\n",
        "rows beyond any number": f"{MARKET}{10**30} 3 1\n1 1 1\n",
        "entries that are not there": f"{MARKET}400000000 3 400000000\n1 1 1\n",
        "array": MARKET.replace("coordinate", "array") + "400000000 400000000\n1\n",
        "array of no columns": MARKET.replace("coordinate", "array") + "400000000 0\n",
        "symmetric array": "%%MatrixMarket matrix array real symmetric\n400000000 400000000\n1\n",
        "pattern": "%%MatrixMarket matrix coordinate pattern general\n400000000 3 1\n1 1\n",
        "comment without end": MARKET + "%" * 3_000_000,
    }


def bombs() -> dict[str, bytes]:
    """Return gzip files that unpack to a GiB or more."""
    # members one after the other unpack one after the other
    kinds = {
        "line": b"1" * 2**24,
        "NUL": bytes(2**24),
        "blank lines": b"\n" * 2**24,
        "spaces": b" " * 2**24,
        "ratings": b"1 2 3\n" * (2**24 // 6),
        "comments": (b"# " + b"a" * 125 + b"\n") * 2**17,
        "empty rows": b",,\n" * (2**24 // 3),
        "comments that may be headers": b"# a b c\n" * 2**21,
        "comments below a header": b"user,item,rating\n" + b"# a b c\n" * 2**21,
        "% comments": b"% user item rating\n" * (2**24 // 19),
        "one comment": b"# " + b"a b " * 2**18 + b"\n",
    }
    heads = {
        "gzip: market comments": MARKET.encode() + b"%\n" * 2**20,
        "gzip: market blank lines": MARKET.encode() + b"3 3 1\n" + b"\n" * 2**20,
    }
    zipped = {f"gzip: {name}": gzip.compress(content) * 64 for name, content in kinds.items()}
    return zipped | {name: gzip.compress(x) + gzip.compress(b"\n" * 2**24) * 64 for name, x in heads.items()}


COSTS = """if True:
    import json, sys, time
    import mfkernel as mf
    from pathlib import Path
    def peak():
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    folder = Path(sys.argv[1])
    (folder / "first").write_text("1 2 3\\n" * 2**18)
    mf.read_ratings(folder / "first", duplicates="last")  # what is loaded and compiled, once
    found = {}
    for path in sorted(folder.iterdir()):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        before, start = peak(), time.process_time()
        try:
            message = str(mf.read_ratings(path, duplicates="last"))
        except ValueError as error:
            message = f"ValueError: {error}"
        found[path.name] = message, peak() - before, time.process_time() - start
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_read_ratings__a_small_file_costs_little(tmp_path):
    """Memory grows by less than 100 MiB; without bounds, each of these takes gigabytes, or minutes."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak of memory in the same way")
    files: dict[str, str | bytes] = {f"npz: {name}": zip_of(x) for name, x in BAD_ARCHIVES.items()}
    files |= {f"mtx: {name}": text for name, text in bad_markets().items()} | bombs()
    content = zip_of({"a": bytes(10**7)})
    files["zip: size declared less"] = with_sizes(content, bytes(10**7), 1000)
    for name, method in (("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        much = bytes(2**28)
        content = zip_of({"a": much}, method)
        files[f"zip: {name}"] = content
        files[f"zip: {name}, size declared less"] = with_sizes(content, much, 1000)
    content = zip_of({"a": bytes(10**7)})
    files["zip: size declared more"] = with_sizes(content, bytes(10**7), 2**32 - 2)
    for name, content in files.items():
        write_file(tmp_path, content, name)
        assert len(content) < 4_000_000
    run = run_python(COSTS, tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.pop("first")[0].startswith("Ratings(1 ")
    assert {name: x[0] for name, x in found.items() if not x[0].startswith("ValueError: ")} == {}
    assert {name: x[0] for name, x in found.items() if name not in x[0]} == {}  # it names the file
    assert {name: x[1] for name, x in found.items() if x[1] > 100} == {}
    assert {name: x[2] for name, x in found.items() if x[2] > 20} == {}


def test_read_ratings__one_long_id_costs_little(tmp_path):
    """Not all ids are as wide as the longest."""
    lines = "".join(f"u{n % 1000}\titem {n}\t{n % 5 + 1}\n" for n in range(20_000))
    tables = []
    for last in ("", "u1\t" + "x" * 1000 + "\t3\n"):
        path = write_file(tmp_path, lines + last)
        with path.open("rb") as file:
            text = Lines(path, Stream(file.read), None)
            tables.append(parse(text, TextRows(text, find_layout(text, Form()))))
    assert tables[1].item_ids.size == tables[0].item_ids.size + 1
    assert tables[1].item_ids.tolist()[-1] == "x" * 1000
    assert tables[1].item_ids.nbytes < 2 * tables[0].item_ids.nbytes


def test_read_ratings__keeps_a_large_empty_matrix(tmp_path):
    """Rows and columns without ratings are kept, up to ten million."""
    ratings = mf.read_ratings(write_file(tmp_path, f"{MARKET}1000000 30000 2\n999999 7 5\n3 29999 1\n"))
    assert ratings.shape == (1_000_000, 30_000)
    assert ratings.nnz == 2
    matrix = sparse.coo_array(([5.0], ([999], [7])), shape=(1_000_000, 30_000))
    for kind in ("coo", "csr", "csc"):
        assert mf.read_ratings(write_file(tmp_path, matrix_file(kind, matrix))).shape == matrix.shape


PIPED = {
    "text": b"1 2 3\n4 5 6\n",
    "gzip": gzip.compress(b"1 2 3\n4 5 6\n"),
    "zip": zip_of({"a": b"1 2 3\n4 5 6\n"}),
    "UTF-16": "1 2 3\n4 5 6\n".encode("utf-16"),
}


PIPES = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")


@contextlib.contextmanager
def pipe_of(folder: Path, chunks: list[bytes]) -> Iterator[Path]:
    """Make a pipe that yields chunks, for as long as somebody reads."""
    path = folder / "pipe"
    os.mkfifo(path)

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), path.open("wb", buffering=0) as pipe:
            for chunk in chunks:
                pipe.write(chunk)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    yield path
    thread.join(10)
    assert not thread.is_alive()


@PIPES
@pytest.mark.parametrize("size", [1, 3, 10**6])
@pytest.mark.parametrize("kind", PIPED)
def test_read_ratings__reads_a_pipe_once(tmp_path, kind, size):
    content = PIPED[kind]
    with pipe_of(tmp_path, [content[n : n + size] for n in range(0, len(content), size)]) as pipe:
        assert cells(mf.read_ratings(pipe)) == {(1, 2): 3.0, (4, 5): 6.0}


@PIPES
@pytest.mark.parametrize("kind", ["coo", "MatrixMarket"])
def test_read_ratings__reads_a_matrix_from_a_pipe(tmp_path, kind):
    matrix = sparse.coo_array(([3, 3.5, 1], ([3, 0, 3], [1, 2, 2])), shape=(5, 4))
    with pipe_of(tmp_path, [matrix_file(kind, matrix)]) as pipe:
        assert (mf.read_ratings(pipe).to_scipy() != matrix).nnz == 0


@PIPES
@pytest.mark.parametrize("start", [b"", b"1 2 3\n", MARKET.encode(), MARKET.encode() + b"%"])
def test_read_ratings__refuses_an_endless_line_of_a_pipe(tmp_path, start):
    with (
        pipe_of(tmp_path, [start] + [b"\1" * 2**16] * 2**20) as pipe,  # 64 GiB, if they were read
        pytest.raises(ValueError, match="1,048,576"),
    ):
        mf.read_ratings(pipe)


@PIPES
@pytest.mark.parametrize("head", [b"", MARKET.encode() + b"9 9 %d\n" % 10**12])
@pytest.mark.slow
def test_read_ratings__stops_a_pipe_before_memory_runs_out(tmp_path, monkeypatch, head):
    monkeypatch.setattr("mfkernel.data.files.streams.available_memory", lambda: 10**8)
    with (
        pipe_of(tmp_path, [head] + [b"1 2 3\n" * 10_000] * 10**6) as pipe,
        pytest.raises(MemoryError, match=r"pipe must hold fewer ratings: the 1,\d+,\d+ read so far"),
    ):
        mf.read_ratings(pipe)


@PIPES
def test_read_ratings__bounds_an_archive_from_a_pipe(tmp_path, monkeypatch):
    monkeypatch.setattr("mfkernel.data.files.streams.MAX_SPOOLED_BYTES", 2**20)
    with (
        pipe_of(tmp_path, [b"PK\x03\x04"] + [bytes(2**16)] * 2**20) as pipe,
        pytest.raises(ValueError, match="plain file"),
    ):
        mf.read_ratings(pipe)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/dev/urandom", "/dev/full"])
def test_read_ratings__refuses_devices(tmp_path, name):
    if not Path(name).is_char_device():
        pytest.skip(f"no {name} on this system")
    (tmp_path / "link").symlink_to(name)
    for path in (Path(name), tmp_path / "link"):
        with pytest.raises(ValueError, match=f"{path} must be a file or a pipe, got a device"):
            mf.read_ratings(path)


MANY_LINES = {
    "blank lines": ("\n" * 1_000_000, {}),
    "blank lines in all": ("1 2 3\n" + "\n" * 1_000_000 + "1 3 3\n", {}),
    "comments": ("#\n" * 500_000 + "1 2 3\n", {}),
    "comments between": ("1 2 3\n" + "# \n" * 500_000, {}),
    "empty rows": (",,\n" * 200_000 + "1,2,3\n" + ",,\n" * 200_000, {}),
    "quotes": ('"' * 1_000_000 + " 2 3\n", {}),
    "pairs of quotes": ('","' * 300_000 + "\n", {}),
    "quoted fields": ('"a""b,' * 100_000 + ",1,2\n", {}),
    "fields": ("1 2 " + "3 " * 500_000 + "\n", {"columns": (0, 1, 2)}),
    "spaces": (" " * 1_000_000 + "1 2 3\n", {}),
    "digits": ("1" * 1_000_000 + " 2 3\n", {}),
    "digits of a rating": ("1 2 " + "3" * 1_000_000 + "\n", {}),
    "comments of MatrixMarket": (MARKET + "%\n" * 500_000 + "1 1 1\n1 1 1\n", {}),
    "blank lines in MatrixMarket": (MARKET + "\n" * 500_000 + "1 1 1\n" + "\n" * 500_000 + "1 1 1\n", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("content", "options"), MANY_LINES.values(), ids=MANY_LINES)
def test_read_ratings__takes_time_in_proportion(tmp_path, content, options):
    """A megabyte of what would take minutes, were each line or field searched for among those before it."""
    path = write_file(tmp_path, content)
    with contextlib.suppress(ValueError):
        assert mf.read_ratings(path, **options).nnz in (1, 2)


FIELDS = st.one_of(
    st.integers(-3, 30).map(str),
    st.sampled_from(
        [
            *(
                "007",
                "+5",
                "-0",
                "1.5",
                "1e3",
                ".5",
                "5.",
                "1_0",
                "nan",
                "inf",
                "1e999",
                "",
                " ",
                "3 ",
                "\u00a03",
            ),
            *(
                "٣",
                "x",
                "a b",
                '"',
                '""',
                '"5"',
                '"a b"',
                '" 5"',
                '"5"6',
                '"a""b"',
                '"a,b"',
                'x"y',
                "#",
                "# 1",
            ),
            *(
                f"{2**63}",
                f"{-(2**63)}",
                "9" * 30,
                "\0",
                "1\0",
                "5\x1c",
                "\x1f5",
                "5\x85",
                "a\u2028b",
                "\ufeff",
            ),
            *("5\f", "\v5", "5\x7f", "\ud800"),
        ]
    ),
    st.text(' \t\v\f\r\0\x1c\x85\xa0\u2028,;:"#0123456789.eE+-_xé', max_size=5),
)
ENDS = st.sampled_from(
    ["\n"] * 8 + ["\r\n", "\r", "\n\n", "\n \n", "\n\x1c\n", "\n,,\n", "\n# \n", "\x0b", ""]
)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, str | None]:
    """Draw lines, most of them of three or four plain fields, and what separates these."""
    separator = draw(st.sampled_from([None, ",", ";", "\t", "::"]))
    lines = []
    for _ in range(draw(st.integers(1, 6))):
        plain = [str(draw(st.integers(0, 30))) for _ in range(draw(st.integers(3, 4)))]
        if draw(st.booleans()):
            plain[draw(st.integers(0, len(plain) - 1))] = draw(FIELDS)
        lines.append((separator or draw(st.sampled_from([" ", "\t", "  ", " \f"]))).join(plain) + draw(ENDS))
    return "".join(lines), separator


def parsed(text: str, separator: str | None, columns: tuple[int, int, int], guessed: int = 0) -> object:
    data = io.BytesIO(text.encode("utf-8", "surrogatepass"))
    lines = Lines(Path("any"), Stream(data.read), None)
    try:
        table = parse(lines, TextRows(lines, Layout(separator, columns, guessed)))
    except ValueError as error:
        return str(error)
    return [x.tolist() for x in table[:5]] + [table.user_ids.dtype.kind, table.item_ids.dtype.kind]


def read_one_by_one(*_: object) -> None:
    raise NotPlainError


@examples(300)
@given(drawn=texts(), columns=st.sampled_from([(0, 1, 2), (0, 1, 2), (2, 1, 0), (1, 2, 3)]))
@example(drawn=("1\x1c2 3 4\n", None), columns=(0, 1, 2))
@example(drawn=("1 2 3\x1c\n", None), columns=(0, 1, 2))
@example(drawn=("1\t2::3::4\n", "::"), columns=(0, 1, 2))
@example(drawn=("# 1 2 3\n1 2 3 4\n", None), columns=(1, 2, 3))
@example(drawn=('1,2,3,"\n\n', ","), columns=(0, 1, 2))
@example(drawn=('"1"2 3 4\n', None), columns=(0, 1, 2))
def test_parse__both_parsers_say_the_same(drawn, columns):
    """The one for plain lines, which takes them all at once, and the one that takes each by itself."""
    text, separator = drawn
    layouts = [(columns, 0), ((0, 1, 2), 3), ((0, 1, 2), 4)]
    at_once = [parsed(text, separator, *layout) for layout in layouts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mfkernel.data.files.text.plain_block", read_one_by_one)
        assert [parsed(text, separator, *layout) for layout in layouts] == at_once


@examples(100)
@given(
    rows=st.lists(
        st.tuples(*[st.integers(-2, 9)] * 3, st.sampled_from([5, 10**8 - 1, 10**8, 10**9])), min_size=1
    )
)
@example(rows=[(1, 2, 3, 10**9), (-1, 2, 3, 10**9)])
@example(rows=[(1, 2, -3, 10**8)])
def test_read_ratings__takes_no_row_of_whole_numbers_for_a_rating(tmp_path_factory, rows):
    text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    path = write_file(tmp_path_factory.getbasetemp(), text, "guessed")
    wrong = [n for n, (user, item, _, time) in enumerate(rows, 1) if min(user, item) < 0 or time < 10**8]
    if wrong:
        with pytest.raises(ValueError, match=f"line {wrong[0]}: "):
            mf.read_ratings(path, duplicates="last")
    else:
        expected = {(user, item): float(rating) for user, item, rating, _ in rows}
        assert cells(mf.read_ratings(path, duplicates="last")) == expected


@examples(100)
@given(texts=st.lists(texts(), min_size=1, max_size=3), size=st.integers(1, 20))
def test_lines__do_not_depend_on_the_blocks(texts, size):
    """Bytes that come in small pieces give the same lines."""
    text = "".join(x for x, _ in texts)
    data = text.encode("utf-8", "surrogatepass")

    def blocks(step: int) -> tuple[str, int]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mfkernel.data.files.lines.BYTES_PER_READ", step)
            lines = Lines(Path("any"), Stream(io.BytesIO(data).read), None)
            found = list(lines.blocks())
        assert [n for n, _ in found] == [
            1 + sum(x.count("\n") for _, x in found[:n]) for n in range(len(found))
        ]
        return "".join(x for _, x in found), lines.number

    assert blocks(size) == blocks(2**20)


VALID = [x if isinstance(x, bytes) else x.encode() for x, *_ in TEXTS.values() if len(x) < 1000]
VALID += [x if isinstance(x, bytes) else x.encode() for x, *_ in REFUSED.values() if len(x) < 1000]
VALID += [x.encode() for x in bad_markets().values() if len(x) < 1000]
VALID += [
    zip_of(BAD_ARCHIVES[name], zipfile.ZIP_STORED) for name in ("rows", "indptr beyond", "places outside")
]
VALID += [zip_of(x, zipfile.ZIP_STORED) for x in (COO, CSR)]
VALID += [
    matrix_file(kind, sparse.coo_array(np.diag([1.0, 2.0])), compressed)
    for kind in ("csr", "csc", "coo", "bsr", "dia")
    for compressed in (True, False)
]
VALID += [gzip.compress(x, mtime=0) for x in VALID]


@examples(300)
@given(data=mutated(VALID) | st.binary(max_size=80))
def test_read_ratings__yields_ratings_or_a_plain_error_at_little_cost(tmp_path_factory, data):
    path = write_file(tmp_path_factory.getbasetemp(), data, "any")
    message = str(path)
    with TracedMemory() as memory:
        try:
            ratings = mf.read_ratings(path, duplicates="last")
            assert np.isfinite(ratings.values).all()
        except ValueError as error:
            message = str(error)
    assert str(path) in message
    assert len(message) < 3000
    assert memory.peak < 600 * 2**20  # a matrix of few entries may have ten million rows
