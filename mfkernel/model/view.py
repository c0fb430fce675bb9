"""The parts of a model as attributes."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import Immutable
from mfkernel._support.frames import in_library
from mfkernel._support.html import facts_table
from mfkernel._support.locks import ProcessLock
from mfkernel.data.entries import sides_with_ids
from mfkernel.data.ratings import Ratings
from mfkernel.methods.posterior import Posterior
from mfkernel.model.history import History
from mfkernel.model.state import State
from mfkernel.options import Settings
from mfkernel.typing import Missing


class StateView(Immutable):
    """An object with the parts of its state as attributes; the state is replaced atomically."""

    state: State
    _writing: ProcessLock

    @classmethod
    def of_state(cls, state: State) -> Self:
        """Make a model from a state.

        Parameters
        ----------
        state
            All parts of the model.
        """
        model = cls.__new__(cls)
        model._become(state)
        return model

    def _become(self, state: State) -> None:
        self.__dict__.setdefault("_writing", ProcessLock())
        self.__dict__["state"] = state

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of_state, (self.state,)  # the lock stays here

    @property
    def P(self) -> NDArray[Any]:  # noqa: N802 (the field's name)
        """(m, k) user factors."""
        return self.state.P

    @property
    def Q(self) -> NDArray[Any]:  # noqa: N802 (the field's name)
        """(k, n) item factors."""
        return self.state.Q

    @property
    def mean(self) -> float:
        """Mean rating μ."""
        return self.state.mean

    @property
    def user_bias(self) -> NDArray[Any] | None:
        """(m,) b_u, or None."""
        return self.state.user_bias

    @property
    def item_bias(self) -> NDArray[Any] | None:
        """(n,) b_i, or None."""
        return self.state.item_bias

    @property
    def known_users(self) -> NDArray[np.bool_]:
        """(m,) True for users with training ratings."""
        return self.state.known_users

    @property
    def known_items(self) -> NDArray[np.bool_]:
        """(n,) True for items with training ratings."""
        return self.state.known_items

    @property
    def history(self) -> History:
        """One record per epoch."""
        state = self.state
        return in_library(state.origin.library, History(state.history))

    @property
    def stop_reason(self) -> str:
        """Why training ended."""
        return self.state.stop_reason

    @property
    def settings(self) -> Settings:
        """The method and its options, such as ``mf.SGD(…)``, with the values used in training."""
        return self.state.settings

    @property
    def missing(self) -> Missing:
        """How a dense table of ratings is read."""
        return self.state.missing

    @property
    def ratings(self) -> Ratings | None:
        """Training ratings, if the model has them."""
        return self.state.ratings

    @property
    def posterior(self) -> Posterior | None:
        """Samples of the factors, if ``method="bayesian"`` has drawn any."""
        return self.state.posterior

    @property
    def user_ids(self) -> NDArray[Any] | None:
        """(m,) ids of the rows, or None."""
        return self.state.user_ids

    @property
    def item_ids(self) -> NDArray[Any] | None:
        """(n,) ids of the columns, or None."""
        return self.state.item_ids

    @property
    def by_position(self) -> Self:
        """The same model without ids, which takes and returns row and column numbers."""
        return self.of_state(self.state.by_position)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the shape of R."""
        return self.state.shape

    @property
    def k(self) -> int:
        """Number of factors."""
        return self.state.k

    def __iter__(self) -> Iterator[NDArray[Any]]:
        state = self.state
        return iter((state.P, state.Q))

    def __repr__(self) -> str:
        state = self.state
        (m, n), rmse = state.shape, f", rmse {state.history[-1].rmse:.4g}" if state.history else ""
        biases = "" if state.user_bias is None else ", biases"
        return f"Factors(P {m:,} × {state.k}, Q {state.k} × {n:,}{biases}, {state.P.dtype}{rmse})"

    def _repr_html_(self) -> str:
        state = self.state
        (m, n), settings = state.shape, state.settings
        facts: list[tuple[str, object]] = [
            ("users × items", f"{m:,} × {n:,}"),
            ("factors", f"{state.k}{'' if state.user_bias is None else ' and biases'}, {state.P.dtype}"),
            ("ids", sides_with_ids(state.users, state.items)),
            ("training ratings", "none" if state.ratings is None else f"{state.ratings.nnz:,}"),
            ("method", settings.method),
            ("settings", ", ".join(f"{name}={_short(value)}" for name, value in settings.values().items())),
            *_training_facts(state),
        ]
        return facts_table("Factors, R ≈ P·Q", facts)


def _training_facts(state: State) -> list[tuple[str, object]]:
    """Return how training went: epochs, last errors, best validation, why it ended."""
    kept = [record for record in state.history if record.rolled_back_to is None]
    if not kept:
        return [("epochs", "no record of the training")]
    undone = len(state.history) - len(kept)
    facts: list[tuple[str, object]] = [
        ("epochs", f"{kept[-1].epoch}{f', {undone} more were undone' if undone else ''}"),
        ("training RMSE", f"{kept[-1].rmse:.4g}"),
    ]
    validated = [record for record in kept if record.validation_error is not None]
    if validated:
        best = min(validated, key=lambda record: record.validation_error)
        figure, name = best.validation_rmse, "validation RMSE"
        if best.validation_ndcg is not None:
            figure, name = best.validation_ndcg, "validation NDCG"
        facts.append((name, f"{figure:.4g}, best epoch {best.epoch}"))
    return [*facts, ("ended by", state.stop_reason or "unknown")]


def _short(value: object) -> str:
    """Return the value of an option, with numbers of four digits."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
