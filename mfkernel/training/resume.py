"""The checkpoint of a fit in a file, from which a later call resumes with the same bits."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ids import Ids, pack_ids
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import interruptible
from mfkernel.methods.base import Parameters, Trainer
from mfkernel.model import archive, atomic
from mfkernel.model.factors import Factors
from mfkernel.model.files import pack_history, unpack_history
from mfkernel.model.history import Epoch
from mfkernel.training.checkpoints import Checkpoints

FORMATS = range(1, 2)  # formats that can be read; the last one is written
MIN_INTERVAL = 10.0  # seconds between two files
MAX_SHARE = 0.1  # share of the time that writing may take; large models are written less often
UNFINISHED = ("time limit", "callback")  # a fit that ended for these reasons can be resumed
REMEDY = "pass the same arguments, another path, or resume=False to start afresh"


class Resumable(Protocol):
    """An object whose state can be stored and restored."""

    def state(self) -> dict[str, Any]:
        """Return numbers and arrays by name."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` has returned."""
        ...


class Run(NamedTuple):
    """The parts of a fit that change with its epochs.

    Attributes
    ----------
    checkpoints
        Copies in memory. With ``keeps_best``, the last one is of the best epoch, and is a part of the file.
    history
        Records of the epochs.
    epochs
        Number of epochs of the fit.
    """

    trainer: Trainer[Any]
    checkpoints: Checkpoints
    progress: Resumable
    history: list[Epoch]
    epochs: int
    keeps_best: bool


class FitFile:
    """The file of a fit's checkpoint.

    Parameters
    ----------
    path
        Path of the file.
    resume
        Whether to resume from the file if it exists.

    Raises
    ------
    OSError
        If the file cannot be written, or exists and cannot be read.
    ValueError
        If ``resume`` is True and the file exists, but is not a checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool) -> None:
        self._path = os.fspath(path)
        atomic.check(self._path)
        self._header: dict[str, Any] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._identity: dict[str, Any] = {}
        if resume and Path(self._path).exists():
            self._header, self._arrays = archive.read(self._path, FORMATS, "checkpoint")
            if not isinstance(self._header.get("identity"), dict):
                raise self._not_whole("it does not name its fit")
        self._due = 0.0

    def seed(self, generator: np.random.Generator, given: bool) -> np.random.Generator:
        """Return the generator of the fit: that of the checkpoint, if the user has given none."""
        state = self._header.get("identity", {}).get("rng")
        if state is not None and not given:
            try:
                source = getattr(np.random, state["bit_generator"])()
                source.state = state
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise self._not_whole(f"its rng cannot be made: {error}") from error
            generator = np.random.Generator(source)
        self._identity["rng"] = generator.bit_generator.state
        return generator

    def identify(self, **arguments: Any) -> None:
        """Compare ratings and arguments of the fit with those of the checkpoint.

        Raises
        ------
        ValueError
            If they differ; the message names the arguments.
        """
        given = self._identity | arguments
        identity = interruptible(lambda: {name: _fingerprint(x) for name, x in given.items()})
        self._identity = json.loads(json.dumps(identity, default=lambda x: x.tolist()))
        if not self._header:
            return
        found = self._header["identity"]
        names = [name for name in self._identity if found.get(name) != self._identity[name]]
        if names:
            parts = [_difference(name, found.get(name), self._identity[name]) for name in names]
            raise ValueError(
                f"checkpoint must be of the same fit, got {self._path}, where {'; '.join(parts)}; {REMEDY}"
            )

    @property
    def epochs(self) -> int | None:
        """Number of epochs of the fit, if there is a checkpoint."""
        return self._header.get("epochs")

    def begin(self, run: Run) -> tuple[int, str]:
        """Restore the checkpoint, if there is one; return its epoch and the reason why the fit ended.

        The reason is empty if the fit is not finished. Its checkpoint is then written once, so that a full
        disk is an error now.
        """
        self._run, epoch, reason = run, 0, ""
        if self._header:
            try:
                epoch, reason = self._restore()
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise self._not_whole(error) from error
        if not reason and epoch < run.epochs:
            self.save(epoch)
        return epoch, reason

    def save_if_due(self, epoch: int) -> None:
        """Write a checkpoint after an epoch, unless the last one is recent; a failure is a warning."""
        if time.perf_counter() >= self._due:
            self._try_to_save(epoch, "")

    def save_at_end(self, epoch: int, reason: str) -> None:
        """Write the last checkpoint of a fit; a failure is a warning."""
        self._try_to_save(epoch, reason)

    def _try_to_save(self, epoch: int, reason: str) -> None:
        try:
            self.save(epoch, reason)
        except (OSError, ValueError) as error:
            self._due = time.perf_counter() + MIN_INTERVAL
            warnings.warn(
                f"the checkpoint of epoch {epoch} could not be written ({error}); training continues",
                stacklevel=7,  # _try_to_save, save_…, train, fit, factorize and its wrapper
            )

    def save(self, epoch: int, reason: str = "") -> None:
        """Write a checkpoint after ``epoch``; ``reason`` says why the fit has ended."""
        trainer, checkpoints, progress, history, epochs, keeps_best = self._run
        start = time.perf_counter()
        state = trainer.state()
        arrays = {f"trainer_{name}": x for name, x in state.items() if isinstance(x, np.ndarray)}
        header = {
            **{"format": FORMATS[-1], "kind": "checkpoint", "identity": self._identity, "epochs": epochs},
            **{"epoch": epoch, "reason": "" if reason in UNFINISHED else reason},
            "progress": progress.state(),
            "trainer": {name: x for name, x in state.items() if f"trainer_{name}" not in arrays},
            "best": None,
        }
        arrays |= {"history": pack_history(history), **trainer.parameters._asdict()}
        if keeps_best and checkpoints.saved is not None:
            header["best"], best = checkpoints.saved
            if header["best"] != epoch:
                arrays |= {f"best_{name}": x for name, x in best._asdict().items()}
        archive.write(self._path, header, dict(arrays))
        end = time.perf_counter()
        self._due = end + max(MIN_INTERVAL, (end - start) / MAX_SHARE)

    def _restore(self) -> tuple[int, str]:
        """Restore the run; return epoch and reason."""
        header, arrays, run = self._header, self._arrays, self._run
        epoch, reason, best = int(header["epoch"]), str(header["reason"]), header["best"]
        _copy_into(run.trainer.parameters, arrays)
        states = {
            name.removeprefix("trainer_"): x for name, x in arrays.items() if name.startswith("trainer_")
        }
        run.trainer.restore(header["trainer"] | states)
        run.progress.restore(header["progress"])
        run.history.extend(unpack_history(arrays["history"]))
        saved = None
        if best is not None:
            saved = int(best), Parameters(*map(np.empty_like, run.trainer.parameters))
            _copy_into(saved[1], arrays, "" if best == epoch else "best_")
        run.checkpoints.resume(epoch, saved)
        if epoch and not run.keeps_best:
            run.checkpoints.save(epoch)
        self._arrays = {}
        return epoch, reason

    def _not_whole(self, error: object) -> ValueError:
        return ValueError(
            f"{self._path} is not a whole checkpoint ({error}); delete it, or pass resume=False"
        )


def _copy_into(parameters: Parameters, arrays: dict[str, NDArray[Any]], prefix: str = "") -> None:
    for name, X in parameters._asdict().items():
        given = arrays[prefix + name]
        if (given.shape, given.dtype) != (X.shape, X.dtype):
            raise ValueError(f"{name} must be {X.shape} of {X.dtype}, got {given.shape} of {given.dtype}")
        np.copyto(X, given)


def _difference(name: str, there: Any, here: Any) -> str:
    """Describe how an argument differs from that of the checkpoint."""
    texts = [repr(x) for x in (there, here)]
    is_digest = name in ("R", "rng") or any(isinstance(x, dict) for x in (there, here))
    return f"{name} is another" if is_digest else f"{name} is {texts[0]}, not {texts[1]}"


def _fingerprint(value: Any) -> Any:
    """Return a value for JSON; ratings, models and arrays become a digest of all their numbers and ids."""
    if isinstance(value, Ratings):
        arrays = [value.indptr, value.indices, value.values, value.weights]
        return _digest(arrays + _id_arrays(value.user_ids, value.item_ids))
    if isinstance(value, Factors):
        mean = np.array(value.mean)
        arrays = [
            value.P,
            value.Q,
            value.user_bias,
            value.item_bias,
            value.known_users,
            value.known_items,
            mean,
        ]
        return _digest(arrays + _id_arrays(value.user_ids, value.item_ids))
    if isinstance(value, tuple) and any(isinstance(x, np.ndarray) for x in value):
        return _digest(value)
    return value


def _id_arrays(*ids: Ids) -> list[NDArray[Any] | None]:
    return [array for names in ids for array in pack_ids("ids", names).values()]


def _digest(arrays: Iterable[NDArray[Any] | None]) -> dict[str, str]:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return {"digest": digest.hexdigest()}
