"""Provide ratings for experiments: the textbook's 5 × 3 example, synthetic data and public data sets."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.files.download import Source, locate
from mfkernel.data.files.read import read_ratings
from mfkernel.data.ratings import Ratings

SERVER = "https://files.grouplens.org/datasets"
MOVIELENS = {  # name -> SHA-256 of the archive, file of ratings in it
    "100k": ("50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229", "ml-100k/u.data"),
    "1m": ("a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20", "ml-1m/ratings.dat"),
    "10m": ("813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862", "ml-10M100K/ratings.dat"),
    "20m": ("96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3", "ml-20m/ratings.csv"),
    "25m": ("8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa", "ml-25m/ratings.csv"),
    "32m": ("e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee", "ml-32m/ratings.csv"),
    "latest-small": (  # the edition of September 2018
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        "ml-latest-small/ratings.csv",
    ),
}
LASTFM = Source(
    title="Last.fm 2K",
    url=f"{SERVER}/hetrec2011/hetrec2011-lastfm-2k.zip",
    sha256="6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c",
    member="user_artists.dat",
    folders=("hetrec2011-lastfm-2k",),
    files=("user_artists.dat",),
    conditions=(
        "For non-commercial use only; the conditions are in the archive's readme.txt. "
        "Cite Cantador, Brusilovsky and Kuflik (2011), the workshop HetRec 2011, "
        "https://grouplens.org/datasets/hetrec-2011/"
    ),
)


def textbook() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the textbook's 5 × 3 ratings and its start values for k = 2.

    A zero means that the rating is unknown.

    Returns
    -------
    R, P0, Q0
        Ratings (5, 3), user factors (5, 2) and item factors (2, 3).
    """
    R = np.array([[5, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 4]], np.float64)
    random = np.random.RandomState(42)
    P0 = random.rand(5, 2)
    return R, P0, random.rand(2, 3)


@checks.explains_names
def synthetic(n_users: int = 943, n_items: int = 1682, nnz: int = 100_000, *, rng: Any = 0) -> Ratings:
    """Generate star ratings with long tails like those of real ratings.

    A few users rate many items and a few items are rated often. Activity and popularity are lognormal; the
    busiest tenth has the same share as in ML-100K and ML-1M.

    A rating is the sum of a mean, a user bias, an item bias, eight factors and noise, rounded to 1, …, 5
    stars. The standard deviation is 1.1 for the ratings and 0.8 for the noise.

    Parameters
    ----------
    n_users, n_items, nnz
        Number of users, items and ratings. At most half of the cells can be rated. Default: as in ML-100K.
    rng
        Seed or generator, as for ``np.random.default_rng``. The same seed gives the same ratings. Default: 0.

    Returns
    -------
    Ratings
        float32 ratings without duplicates. Some users and items may have no rating.

    Examples
    --------
    >>> synthetic(200, 100, 3000)
    Ratings(200 users × 100 items, 3,000 ratings, float32)
    """
    n_users, n_items, nnz = (
        checks.integer(name, value, 1)
        for name, value in (("n_users", n_users), ("n_items", n_items), ("nnz", nnz))
    )
    if nnz > n_users * n_items // 2:
        raise ValueError(f"nnz must be at most half of the {n_users} × {n_items} cells, got {nnz}")
    random = np.random.default_rng(rng)
    activity = random.lognormal(0.0, 1.15, n_users)
    popularity = random.lognormal(0.0, 1.4, n_items)
    users, items = np.divmod(_distinct_cells(activity, popularity, nnz, random), n_items)
    k = 8
    P = random.normal(0.0, 1.0, (n_users, k))
    Q = random.normal(0.0, 0.55 / np.sqrt(k), (n_items, k))
    values = 3.55 + random.normal(0.0, 0.4, n_users)[users] + random.normal(0.0, 0.45, n_items)[items]
    step = 2**20
    for start in range(0, nnz, step):
        part = slice(start, start + step)
        values[part] += np.einsum("nk,nk->n", P[users[part]], Q[items[part]])
    values += random.normal(0.0, 0.8, nnz)
    stars = np.clip(np.rint(values), 1, 5).astype(np.float32)
    return Ratings((users, items, stars, (n_users, n_items)))


@checks.explains_names
def movielens(
    name: str = "100k", *, timestamp: bool = False, cache: str | os.PathLike[str] | None = None
) -> Ratings:
    """Read a MovieLens data set; download it if there is no copy yet.

    ==================  ==========  =======  ======  ===============  ==========
    name                   ratings    users  movies  stars              download
    ==================  ==========  =======  ======  ===============  ==========
    ``"100k"``             100,000      943   1,682  1, 2, …, 5             5 MB
    ``"1m"``             1,000,209    6,040   3,706  1, 2, …, 5             6 MB
    ``"10m"``           10,000,054   69,878  10,677  0.5, 1, …, 5          66 MB
    ``"20m"``           20,000,263  138,493  26,744  0.5, 1, …, 5         199 MB
    ``"25m"``           25,000,095  162,541  59,047  0.5, 1, …, 5         262 MB
    ``"32m"``           32,000,204  200,948  84,432  0.5, 1, …, 5         239 MB
    ``"latest-small"``     100,836      610   9,724  0.5, 1, …, 5           1 MB
    ==================  ==========  =======  ======  ===============  ==========

    A file in the folder that the environment variable ``MFKERNEL_DATA`` names is used first, such as
    ``ml-1m/ratings.dat``, plain or gzipped. It is read as it is. Without such a file, the archive is
    downloaded from GroupLens, which needs the extra ``datasets``. Its SHA-256 is checked, its file of
    ratings is kept in the cache, and the conditions of use are printed to stderr.

    Parameters
    ----------
    name
        Name of the data set. Default: ``"100k"``.
    timestamp
        Keep the times of the ratings, in seconds since 1970. Default: False.
    cache
        Folder for the downloaded files, which is created if it is missing. Default:
        ``pooch.os_cache("mfkernel")``, which is ``~/.cache/mfkernel`` on Linux.

    Returns
    -------
    Ratings
        float32 ratings with the ids of the data set.

    Raises
    ------
    ImportError
        If there is no local copy and pooch is missing.
    OSError
        If the archive cannot be downloaded or the cache cannot be written.
    ValueError
        If the name is unknown, or the archive is damaged or not the known one. Nothing of it stays in the
        cache.

    Notes
    -----
    GroupLens may replace ``"latest-small"`` by newer ratings. Only the edition of September 2018 has the
    known checksum; any other is refused. A local copy may have any edition.

    Examples
    --------
    >>> movielens("1m")  # doctest: +SKIP
    Ratings(6,040 users × 3,706 items, 1,000,209 ratings, float32)
    """
    checks.one_of("name", name, tuple(MOVIELENS))
    keep_times = checks.boolean("timestamp", timestamp)
    return read_ratings(locate(_movielens_source(name), cache), timestamp=keep_times)


@checks.explains_names
def lastfm(*, cache: str | os.PathLike[str] | None = None) -> Ratings:
    """Read how often users of Last.fm listened to artists; download it if there is no copy yet.

    The 92,834 counts of 1,892 users and 17,632 artists are implicit feedback, for ``ImplicitALS``. The file
    ``hetrec2011-lastfm-2k/user_artists.dat`` in the folder that ``MFKERNEL_DATA`` names is used first.
    Otherwise it is downloaded and kept as :func:`movielens` does.

    Parameters
    ----------
    cache
        Folder for the downloaded files, as for :func:`movielens`.

    Returns
    -------
    Ratings
        float32 counts with the ids of the data set.

    Examples
    --------
    >>> lastfm()  # doctest: +SKIP
    Ratings(1,892 users × 17,632 items, 92,834 ratings, float32)
    """
    return read_ratings(locate(LASTFM, cache), columns=("userID", "artistID", "weight"))


def _movielens_source(name: str) -> Source:
    sha256, member = MOVIELENS[name]
    folder, _, file = member.partition("/")
    ending = "txt" if name in ("100k", "1m") else "html"
    return Source(
        title=f"MovieLens {name}",
        url=f"{SERVER}/movielens/ml-{name}.zip",
        sha256=sha256,
        member=member,
        folders=tuple(dict.fromkeys((folder, f"ml-{name}"))),
        files=tuple(dict.fromkeys((file, "ratings.csv"))),
        conditions=(
            "For research only, not for commercial use without permission; the conditions are in "
            f"{SERVER}/movielens/ml-{name}-README.{ending}. Cite Harper and Konstan (2015), The MovieLens "
            "Datasets: History and Context, https://doi.org/10.1145/2827872"
        ),
    )


def _distinct_cells(
    row_weights: NDArray[np.float64],
    column_weights: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw distinct cells with about the given weights; return their numbers, sorted.

    Cells are numbered row by row.
    """
    n_columns = column_weights.size
    rows, columns = (np.cumsum(w) / w.sum() for w in (row_weights, column_weights))
    cells, share = np.empty(0, np.int64), 0.05
    while cells.size < count:
        # where rows and columns are nearly full, most draws repeat; uniform draws keep the loop short
        draws = int(1.2 * (count - cells.size)) + 16
        u = np.searchsorted(rows, rng.random(draws)).clip(max=row_weights.size - 1)
        i = np.searchsorted(columns, rng.random(draws)).clip(max=n_columns - 1)
        uniform = rng.random(draws) < share
        u[uniform] = rng.integers(row_weights.size, size=int(uniform.sum()))
        i[uniform] = rng.integers(n_columns, size=int(uniform.sum()))
        cells = np.union1d(cells, u.astype(np.int64) * n_columns + i)
        share = min(1.0, 2 * share)
    return np.sort(rng.choice(cells, count, replace=False, shuffle=False))
