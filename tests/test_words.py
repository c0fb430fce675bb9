"""Words that the prose of the project avoids: a ratchet that may only be tightened.

docs/CONTRIBUTING.md has the rules. Each file must have exactly as many hits as ``ALLOWED`` says. A rewritten
sentence therefore lowers a number, by ``python tests/test_words.py --update``. The aim is an empty table.
Without ``--update``, the command lists all hits.
"""

import ast
import inspect
import io
import re
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("mfkernel", "benchmarks", "tests", "docs", ".github", ".ci")
FILES = ("README.md", "pyproject.toml", ".pre-commit-config.yaml")

COUNTED = (
    "bits?|blocks?|bytes?|calls?|cases?|cells?|columns?|commands?|commits?|copy|copies|digits?|draws?|entry|entries|epochs?|"
    "files?|fits?|lines?|numbers?|pass|passes|points?|processes|products?|ratings?|rows?|seconds?|sets?|steps?|"
    "tasks?|tests?|times?|values?|vectors?|weights?"
)
EACH = (
    "band|block|call|case|cell|character|column|commit|core|dtype|entry|epoch|factor|field|file|id|item|line|loss|method|"
    "minute|pass|process|rank|rating|round|row|second|side|solver|step|stratum|task|thread|tile|user|wave"
)
SENTENCE = r"\b(?:[^.?!]|\.\w)*(?:[.!]|$)"  # the rest of a sentence that is no question

RULES = {
    "begin with the subject, not with Of": r"\bOf\b",
    "begin with a noun, not with What": rf"\bWhat{SENTENCE}",
    "begin with a noun, not with Who": rf"\bWho(?:m|se|ever)?{SENTENCE}",
    "write per": rf"\b(?:{COUNTED}) an? (?:{EACH})\b",
    "write new user or new item": r"\b[Ss]trangers?\b",
    "write again": r"\b[Aa]new\b",
    "write alternately or one after the other": r"\b(?:by turns|(?:tak(?:e|es|ing)|took) turns|in turns?)\b",
    "write overfit or memorize": r"\bby heart\b",
    "write continue or resume": r"\b(?:go|goes|going|went|gone) on\b",
    "write also, before the verb": r", too(?=\s*[.;:,)?!]|$)",
    "name the noun": r"\b(?:if|where) there (?:is|are) such\b|\bwithout such\b",
    "end with a noun": r"\bthere (?:is|are)(?=\s*[.;:,)!]|$)",
    "write they": r"\b(?:[Hh]e|[Hh]is|[Hh]im|[Hh]imself)\b",
    "write sparse": r"\b[Tt]hin(?:ly|ness|ner)?\b",
    "write gradient": r"\b[Pp]ull(?:s|ed)?\b",
    "write penalize or bound": r"\b(?:hold|holds|held) down\b",
    "write is": r"\b[Ss]tands?\b(?! for)",
    "write options": r"\b[Ww]ish(?:es)?\b",
}
PATTERNS = {advice: re.compile(pattern) for advice, pattern in RULES.items()}
CODE = re.compile(r"``.+?``|`[^`]+`|\]\([^)]*\)|\w+://\S+")
BULLET = re.compile(r"(?:[-*+>]|\d+\.|#+) +")

ALLOWED: dict[str, int] = {
    "tests/test_als.py": 5,
    "tests/test_benchmarks.py": 2,
    "tests/test_blocks.py": 3,
    "tests/test_cli.py": 2,
    "tests/test_factors.py": 1,
    "tests/test_gate.py": 2,
    "tests/test_gram_tiles.py": 1,
    "tests/test_ids.py": 1,
    "tests/test_immutable.py": 1,
    "tests/test_implicit.py": 4,
    "tests/test_kernel_cache.py": 1,
    "tests/test_objective.py": 1,
    "tests/test_online.py": 2,
    "tests/test_options.py": 1,
    "tests/test_process.py": 1,
    "tests/test_saving.py": 2,
    "tests/test_splits.py": 3,
    "tests/test_top_n.py": 1,
    "tests/test_units.py": 1,
    "tests/test_vectors.py": 2,
}


def sources():
    """Return the files whose prose is checked: all but this one, which has to name the words."""
    found = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".yml", ""}]
    return sorted(path for path in found if path.is_file() and path != Path(__file__).resolve())


def pieces(path):
    """Return pieces of prose, each with the number of its first line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return python_pieces(text)
    if path.suffix == ".md":
        return [(1, without_fences(text))]
    comments = enumerate((re.search(r"(?:^|\s)#\s(.*)", line) for line in text.splitlines()), 1)
    return [(number, comment[1]) for number, comment in comments if comment]


def without_fences(text):
    """Empty the lines of fenced code and of HTML comments."""
    pattern = re.compile(r"^( *)(```|~~~).*?^\1\2|<!--.*?-->", re.MULTILINE | re.DOTALL)
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def python_pieces(text):
    """Return the comments and the strings of a program; adjacent ones are one piece."""
    found = []
    before, bottom, left = tokenize.NL, 0, 0
    for kind, string, (row, column), last in whole_tokens(text):
        if kind == tokenize.NL:
            continue
        if kind == tokenize.STRING:
            if before != kind:
                found.append([row, ""])
            found[-1][1] += string_value(string)
        elif kind == tokenize.COMMENT:
            if (before, bottom, left) != (kind, row - 1, column):
                found.append([row, ""])
            found[-1][1] += string.lstrip("#: ") + "\n"
        before, bottom, left = kind, last, column
    return found


def whole_tokens(text):
    """Yield kind, text, start and last row of each token; an f-string is one, as before Python 3.12."""
    lines = text.splitlines(keepends=True)
    depth, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[token.type]
        if name in ("FSTRING_START", "TSTRING_START"):
            start = start if depth else token.start
            depth += 1
        elif name in ("FSTRING_END", "TSTRING_END"):
            depth -= 1
            if not depth:
                (first, left), (last, right) = start, token.end
                inside = [*lines[first - 1 : last - 1], lines[last - 1][:right]]
                yield tokenize.STRING, "".join(inside)[left:], start, last
        elif not depth:
            yield token.type, token.string, token.start, token.end[0]


def string_value(literal):
    """Return the text of a literal, without indentation; bytes and the fields of an f-string are no prose."""
    prefix = re.match(r"\w*", literal)[0].lower()
    if "b" in prefix:
        return ""
    if set("ft") & set(prefix):
        body = literal[len(prefix) :]
        while body != (simpler := re.sub(r"\{[^{}]*\}", "x", body)):
            body = simpler
        literal = "r" * ("r" in prefix) + body
    value = ast.literal_eval(literal)
    return inspect.cleandoc(value) if "\n" in value else value


def paragraphs(first, text):
    """Yield paragraphs as lists of line number and line; headings, bullets and cells are their own."""
    lines, indent = [], 0
    for number, line in enumerate(text.splitlines(), first):
        words = line.strip()
        bullet = BULLET.match(words)
        depth = len(line) - len(line.lstrip()) + (bullet.end() if bullet else 0)
        plain = re.search(r"\w", words) and not words.startswith((">>> ", "... ", "|"))
        if bullet or not plain or depth != indent:
            yield lines
            lines, indent = [], depth
        if plain:
            lines.append((number, words[bullet.end() :] if bullet else words))
        elif words.startswith("|"):
            yield from ([(number, cell.strip())] for cell in words.split("|"))
    yield lines


def hits(first, text):
    """Return the line, the words and the advice of all in a piece that breaks a rule."""
    found = []
    for lines in paragraphs(first, text):
        joined, starts = "", []
        for number, line in lines:
            starts.append((len(joined), number))
            joined += line + " "
        joined = CODE.sub(lambda match: "x" * len(match[0]), joined).rstrip()
        for advice, pattern in PATTERNS.items():
            for match in pattern.finditer(joined):
                number = max(start for start in starts if start[0] <= match.start())[1]
                found.append((number, match[0], advice))
    return found


def hits_per_file():
    """Return the hits of each file that has some, one line each."""
    found = {}
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for line, words, advice in sorted(hit for piece in pieces(path) for hit in hits(*piece)):
            found.setdefault(name, []).append(f"{name}:{line}: {words[:60]!r}: {advice}")
    return found


def compare(found, allowed, command):
    """Fail if any list of faults is longer or shorter than allowed."""
    more = {key: faults for key, faults in found.items() if len(faults) > allowed.get(key, 0)}
    lines = [
        f"{key} has {len(faults)}, allowed {allowed.get(key, 0)}:\n" + "\n".join(faults)
        for key, faults in more.items()
    ]
    assert not more, "\n".join(lines)
    fewer = [key for key, number in allowed.items() if len(found.get(key, ())) < number]
    assert not fewer, (
        f"fewer than allowed, which is good: run {command} --update and commit the table: {fewer}"
    )


def rewrite_table(path, found):
    """Put the numbers of faults in place of ALLOWED in a test file, in the format of ruff."""
    rows = "".join(f'    "{key}": {len(faults)},\n' for key, faults in sorted(found.items()))
    table = f"{{\n{rows}}}" if rows else "{}"
    text = Path(path).read_text(encoding="utf-8")
    new, changes = re.subn(r"^(ALLOWED: .*? = )\{.*?\}$", rf"\1{table}", text, flags=re.MULTILINE | re.DOTALL)
    assert changes == 1
    Path(path).write_text(new, encoding="utf-8")


def test_prose__avoids_the_words():
    compare(hits_per_file(), ALLOWED, "python tests/test_words.py")


@pytest.mark.parametrize(
    "text",
    [
        "Fit it. Of SGD, each rating makes a step.",
        "What a factorization yields.",
        "What is left out is chosen from\nthe data.",
        "Who has no ratings gets the mean.",
        "a row a user",
        "two seconds an epoch",
        "users who are strangers",
        "measured anew",
        "They take turns.",
        "with the JIT off, too",
        "Some are known,\ntoo.",
        "as many as there are.",
        "- the validation ratings, if there are such",
    ],
)
def test_rules__find_what_they_forbid(text):
    assert len(hits(1, text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "What is the rank?",
        "Who uses it? Everyone.",
        "`R` has one row per user, and there are two.",
        "too many rows, too few columns",
        "the ``Of`` of a formula, `a row a user` and\n>>> anew",
        "Give each row a name.",
        "SGD stands for stochastic gradient descent.",
    ],
)
def test_rules__leave_plain_sentences_alone(text):
    assert hits(1, text) == []


def test_pieces__are_comments_and_strings_only(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        'anew = 1  # one\n# two\n# three\nf(f"four {anew!r:>{width}} {{"\n  "five", b"anew", r"\\d")\n',
        encoding="utf-8",
    )
    assert [(first, text.strip()) for first, text in pieces(path)] == [
        (1, "one"),
        (2, "two\nthree"),
        (4, "four x {{five"),
        (5, ""),
        (5, "\\d"),
    ]


def test_pieces__of_markdown_have_no_code(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("one\n```sh\nanew\n```\ntwo anew <!-- anew\n--> three anew\n", encoding="utf-8")
    ((first, text),) = pieces(path)
    assert [number for number, _, _ in hits(first, text)] == [5, 6]


def main(path, found):
    """Print all faults, or with --update write the table of a test file."""
    if sys.argv[1:] == ["--update"]:
        rewrite_table(path, found)
    else:
        print("\n".join(line for faults in found.values() for line in faults))


if __name__ == "__main__":
    main(__file__, hits_per_file())
