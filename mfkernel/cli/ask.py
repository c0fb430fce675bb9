"""The commands that use or update a saved model."""

import argparse
from pathlib import Path
from typing import Any

import mfkernel as mf
from mfkernel._support import checks
from mfkernel.cli.ids import as_in_model, check_either_has_ids, known_ids, only_known_items
from mfkernel.cli.inputs import check_file_options, check_output, read_file, read_words
from mfkernel.cli.output import (
    format_number,
    id_of_row,
    print_json,
    print_rankings,
    print_recommendations,
    print_table,
    printable,
)


def recommend(options: argparse.Namespace) -> None:
    """Print one line per user and recommended item."""
    if bool(options.users) == (options.ratings is not None):
        raise ValueError("USER or --ratings FILE must be given, not both; --ratings recommends to new users")
    n = checks.integer("-n", options.n, 1)
    if options.ratings is not None:
        model = mf.load(options.model)
        asked: Any = only_known_items(model, read_file(options, options.ratings), options.ratings)
        names = [id_of_row(asked.user_ids, row) for row in range(asked.n_users)]
    else:
        check_file_options(options, "--ratings FILE")
        model = mf.load(options.model)
        asked = known_ids(model, "user", options.users)
        names = list(map(printable, asked))
    items: dict[str, Any] = {}
    if options.items is not None:
        items = {"items": known_ids(model, "item", read_words(options.items), skip_unknown=True)}
    if options.explore is not None:
        items |= {"explore": _number_or_word(options.explore), "rng": options.seed}
    found = model.recommend(asked, n, exclude_seen=not options.include_seen, **items)
    if options.json:
        print_json(found.to_list())
        return
    print_recommendations("item", names, found, "score")


def similar(options: argparse.Namespace) -> None:
    """Print one line per similar item or user."""
    n = checks.integer("-n", options.n, 1)
    model = mf.load(options.model)
    kind = "user" if options.users else "item"
    search: Any = model.similar_users if options.users else model.similar_items
    asked = known_ids(model, kind, options.ids)
    found = search(asked, n)
    if options.json:
        print_json(found.to_list())
        return
    print_recommendations(kind, list(map(printable, asked)), found, "cosine")


def predict(options: argparse.Namespace) -> None:
    """Print one line per item and its predicted rating."""
    model = mf.load(options.model)
    (user,) = known_ids(model, "user", [options.user])
    items = known_ids(model, "item", options.items)
    names = ["prediction"]
    if options.interval is None:
        parts = [model.predict(user, items).tolist()]
    else:
        names += ["std", "noise", "lower", "upper"]
        parts = [part.tolist() for part in model.predict(user, items, interval=options.interval)]
    rows = list(zip(*parts, strict=True))
    if options.json:
        answers = [dict(zip(names, row, strict=True)) for row in rows]
        print_json([{"item": item, **answer} for item, answer in zip(items, answers, strict=True)])
        return
    lines = [[*map(format_number, row), printable(item)] for item, row in zip(items, rows, strict=True)]
    print_table([[*names, "item"], *lines], left=(len(names),))


def evaluate(options: argparse.Namespace) -> None:
    """Print the errors, or ranking metrics, of held-out ratings."""
    model = mf.load(options.model)
    test = _with_ids_of_model(model, read_file(options, options.file), options.file)
    if model.settings.implicit:
        print_rankings(model, test)
        return
    names = ("rmse", "mae", "r2")
    print_table([[name, format_number(getattr(mf.metrics, name)(model, test))] for name in names])


def explain(options: argparse.Namespace) -> None:
    """Print the parts of a prediction, one per line."""
    n = checks.integer("-n", options.n, 1)
    model = mf.load(options.model)
    (user,) = known_ids(model, "user", [options.user])
    (item,) = known_ids(model, "item", [options.item])
    parts = model.explain(user, item, n)
    scale = " (as log-odds)" if model.settings.loss == "logistic" else ""
    rows = [
        (parts.score, f"the prediction{scale}"),
        (parts.mean, "mean"),
        (parts.user_bias, "user's bias"),
        (parts.item_bias, "item's bias"),
        *(
            (part, f"rating of {printable(item)}")
            for item, part in zip(parts.items, parts.contributions, strict=True)
        ),
        (parts.rest, "other ratings and the rest"),
    ]
    print_table([[format_number(part), name] for part, name in rows], left=(1,))


def update(options: argparse.Namespace) -> None:
    """Learn new ratings and save the model."""
    target = str(options.model) if options.output is None else options.output
    check_output(target)
    model = mf.load(options.model)
    new, before = read_file(options, options.file), model.shape
    model.partial_fit(_with_ids_of_model(model, new, options.file)).save(target)
    users, items = (after - old for after, old in zip(model.shape, before, strict=True))
    print(f"{new.nnz:,} ratings, {users:,} new users and {items:,} new items")
    print(f"saved {printable(target)}")


def _number_or_word(text: str) -> float | str:
    """Return a number, or the text if it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def _with_ids_of_model(model: mf.Factors, new: mf.Ratings, path: Path) -> mf.Ratings:
    """Return ratings of a file with integers or text as ids, as the model has them."""
    ids: dict[str, Any] = {}
    for kind in ("user", "item"):
        theirs, own = getattr(new, f"{kind}_ids"), getattr(model, f"{kind}_ids")
        check_either_has_ids(kind, theirs, own, path)
        if theirs is not None and own is not None:
            ids[f"{kind}_ids"] = names = as_in_model(theirs, own)
            words = [x for x in names if isinstance(x, str)]
            if words and own.dtype.kind in "iu":
                raise ValueError(f"{path}: {kind} ids must be integers as in the model, got {words[0]!r}")
    return mf.Ratings(new, **ids)
