"""Rankings: recall and NDCG of held-out items, for fits with default settings and for popularity."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import mfkernel as mf
from benchmarks import data, store
from benchmarks.progress import show
from benchmarks.tables import markdown

Ranked = tuple[mf.Ratings, mf.Ratings, mf.Ratings]  # for training, for those who are asked, held out

REAL = ("ML-1M", "ml-latest-small", "ML-100K")
SEEDS = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    data.add_option(parser)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure how well held-out items are ranked, for each split."""
    data.require(options.data, REAL)
    splits: dict[str, Callable[[mf.Ratings, int], Ranked]] = {
        "a tenth of the ratings": lambda R, seed: _same_users(*data.hold_out_tenth(R, seed)),
        "5 of each user": lambda R, seed: _same_users(*mf.leave_n_out(R, 5, rng=seed)),
        "a fifth of each new user": lambda R, seed: mf.strong_generalization_split(R, rng=seed),
    }
    rows = []
    for name in REAL:
        R = data.load(name, options.data)
        for split, part in splits.items():
            rows.append(
                {
                    "data": name,
                    "held out": split,
                    "scores": scores([part(R, seed) for seed in range(SEEDS)]),
                }
            )
    return {"rows": rows}


def scores(splits: list[Ranked]) -> dict[str, dict[str, list[float]]]:
    """Return recall and NDCG of each predictor on each split."""
    predictors: dict[str, Callable[[mf.Ratings, int], mf.Factors]] = {
        "popularity": popularity,
        "with biases": lambda R, seed: mf.factorize(R, 32, biases=True, rng=seed),
        "implicit": lambda R, seed: mf.factorize(R, 32, method="implicit", rng=seed),
        "implicit, k = 128": lambda R, seed: mf.factorize(R, 128, method="implicit", rng=seed),
    }
    found: dict[str, dict[str, list[float]]] = {name: {"recall": [], "ndcg": []} for name in predictors}
    for seed, (training, known, held_out) in enumerate(splits):
        for name, fit in predictors.items():
            show(f"rankings: {training.nnz:,} ratings, split {seed + 1} of {len(splits)}: {name}")
            model = fit(training, seed)
            if known is not training:
                model = model.fold_in(known)
            found[name]["recall"].append(mf.metrics.recall_at_n(model, held_out, 20))
            found[name]["ndcg"].append(mf.metrics.ndcg_at_n(model, held_out, 100))
    show("")
    return found


def popularity(R: mf.Ratings, seed: int) -> mf.Factors:
    """Return a model that ranks items by how many have rated them."""
    counts = R.item_counts().astype(np.float64)
    zeros = np.zeros((1, R.n_items))
    settings = mf.SGD(regularization=(1.0, 1.0))
    users = np.zeros(R.n_users)
    return mf.Factors(users[:, None], zeros, user_bias=users, item_bias=counts, settings=settings, ratings=R)


def render(results: store.Results) -> str:
    """Return the table of rankings, and its caption."""
    rows = [
        [
            *(row["data"], row["held out"]),
            *(f"{np.mean(x['recall']):.3f}, {np.mean(x['ndcg']):.3f}" for x in row["scores"].values()),
        ]
        for row in results["rows"]
    ]
    most = max(np.std(x) for row in results["rows"] for y in row["scores"].values() for x in y.values())
    return (
        f"{markdown.table(['data', 'held out', *results['rows'][0]['scores']], rows)}\n\n"
        "Recall of the 20 best and NDCG of the 100 best among all items that the user has not rated, the "
        f"mean of five splits with a standard deviation of at most {most:.2g}, of `factorize(R, 32)` with "
        "default settings, except for the option in the column header. New users are a tenth of the users; "
        f"training has not seen them, and they are folded in. {results['machine']}"
    )


def _same_users(training: mf.Ratings, held_out: mf.Ratings) -> Ranked:
    return training, training, held_out
