"""The lists and explanations of a model, as methods that delegate to functions of its state."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mfkernel._support import checks
from mfkernel._support.frames import in_library
from mfkernel.data.convert import MISSING
from mfkernel.data.merge import are_rows, is_one_user
from mfkernel.linalg.top_n import pack_items
from mfkernel.model.answers import Recommendations
from mfkernel.model.explain import Explanation, explain
from mfkernel.model.foldin import new_users
from mfkernel.model.predictor import Predictor
from mfkernel.model.recommend import recommend, similar
from mfkernel.typing import Missing, RngLike, UnknownItems


class Recommender(Predictor):
    """A model that recommends items, finds similar ones and explains its predictions."""

    @checks.explains_names
    def recommend(
        self,
        users: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Any = None,
        items: ArrayLike | None = None,
        unknown: UnknownItems = "raise",
        min_count: int = 0,
        explore: float | Literal["thompson"] | None = None,
        rng: RngLike = None,
        missing: Missing | None = None,
        n_threads: int | None = None,
    ) -> Recommendations:
        """Find the n items with the highest predictions for each user.

        For lists that users like, fit implicit feedback: items with few ratings have uncertain predictions,
        and so the highest predicted ratings of an explicit model are mostly of such items; see ``min_count``.

        Parameters
        ----------
        users
            Id of a user, or row number without ids, or a list or 1-D array of them; or ratings of new
            users, as for :meth:`fold_in`.
        n
            Number of items per user.
        exclude_seen
            Leave out the items that the user has rated.
        exclude
            Ids or column numbers of items to leave out for all users; or a list of such lists, one per user.
            Items that the model does not have are ignored. Default: none.
        items
            Ids or column numbers of the items to choose from. Default: all.
        unknown
            Whether ``items`` that the model does not have ``"raise"`` an error, or are left out with a
            warning that counts them, ``"ignore"``. Default: ``"raise"``.
        min_count
            Leave out items with fewer training ratings. Default: 0.
        explore
            For a Bayesian model, rank by mean + explore · standard deviation: above 0 to try items that
            little is known about, below 0 to avoid them. ``"thompson"`` ranks by a random sample per user.
            Default: rank by the mean.
        rng
            Seed or generator of the samples, as for ``np.random.default_rng``.
        missing
            How a dense table of new users' ratings is read. Default: as in training.
        n_threads
            Number of threads. Default: one per core.

        Returns
        -------
        Recommendations
            ``items``, by id if the model has item ids, and ``scores``, best first; equal scores are ordered
            by column number. One user gets n entries, or fewer if fewer items are left. For s users, both are
            masked arrays (s, n), or (s, n_items) if n is larger. Without biases, users without ratings get
            the most rated items.

        Raises
        ------
        KeyError
            If an id is not in the model.
        TypeError, ValueError
            If a number is no integer or out of range; if seen items are to be excluded, or a user has no
            ratings, and the model has no ``ratings``; if ``explore`` is given and the model has no samples.

        Examples
        --------
        >>> from mfkernel import Factors
        >>> model = Factors([[1.0], [2.0]], [[3.0, 5.0, 4.0]])
        >>> model.recommend(0, 2, exclude_seen=False).items
        array([1, 2], dtype=int32)
        """
        n, state = checks.integer("n", n, 1), self.state
        if missing is not None:
            checks.one_of("missing", missing, MISSING)
        if are_rows(users):
            rows = state.rows(users)
            asked, one, rows = state, rows.ndim == 0, rows.reshape(-1)
        else:
            asked, one = new_users(state, users, n_threads, missing=missing), is_one_user(users)
            rows = np.arange(asked.shape[0])
        found = recommend(
            *(state, asked, rows, n, n_threads, pack_items),
            exclude_seen=exclude_seen,
            exclude=exclude,
            items=items,
            unknown=unknown,
            min_count=checks.integer("min_count", min_count, 0),
            explore=explore,
            rng=rng,
            one=one,
        )
        return in_library(state.origin.library, found)

    def similar_items(self, items: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n items whose factors have the greatest cosine to those of an item, or of several.

        Parameters
        ----------
        items
            Id of an item, or column number without ids, or a 1-D array of them.
        n
            Number of similar items, at least 1. Default: 10.

        Returns
        -------
        Recommendations
            ``items`` and ``scores``, the cosines, best first, in the forms of :meth:`recommend`. The item
            itself and items without ratings are left out. Items without ratings have no similar items.

        Raises
        ------
        KeyError
            If an id is not in the model.
        TypeError, ValueError
            If a number is no integer or out of range.
        """
        state = self.state
        rows = state.columns(items)
        found = similar(rows, "items", state.items, n, state.Q.T, state.known_items, pack_items)
        return in_library(state.origin.library, found)

    def similar_users(self, users: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n users whose factors have the greatest cosine to those of a user, or of several.

        Parameters
        ----------
        users
            Id of a user, or row number without ids, or a 1-D array of them.
        n
            Number of similar users, at least 1. Default: 10.

        Returns
        -------
        Recommendations
            ``items``, which are users here, and ``scores``, as for :meth:`similar_items`.

        Raises
        ------
        KeyError
            If an id is not in the model.
        TypeError, ValueError
            If a number is no integer or out of range.
        """
        state = self.state
        rows = state.rows(users)
        found = similar(rows, "users", state.users, n, state.P, state.known_users, pack_items)
        return in_library(state.origin.library, found)

    def explain(self, user: Any, item: Any, n: int = 10) -> Explanation:
        r"""Explain a prediction as a sum of contributions of the user's ratings.

        For the squared loss, the user's factors are a sum over their ratings j, given the items' factors. The
        contribution of a rating is :math:`w_j \, q_i^T A^{-1} q_j (r_j - \mu - b_u - b_j)` with
        :math:`A = \sum w_j q_j q_j^T + \lambda c I`; for implicit feedback,
        :math:`q_i^T A^{-1} q_j (1 + \alpha r_j)` with
        :math:`A = \sum (1 + \alpha r_j - w_0) q_j q_j^T + w_0 Q Q^T + \lambda c I`. For other losses, it is
        the amount by which the score would fall without the rating: exact for few or influential ratings and
        for the absolute loss, else to first order.

        Parameters
        ----------
        user, item
            Ids, or row and column number without ids.
        n
            Number of ratings to list.

        Returns
        -------
        Explanation
            ``score = mean + user_bias + item_bias + Σ contributions + rest``; the n largest contributions and
            their items are listed.

        Raises
        ------
        ValueError
            If the model does not have its ratings.

        References
        ----------
        Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
        Koh and Liang, "Understanding black-box predictions via influence functions", ICML 2017.
        """
        n, state = checks.integer("n", n, 1), self.state
        explained = explain(state, state.row("user", user), state.column("item", item), n)
        return in_library(state.origin.library, explained)
