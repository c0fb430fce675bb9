"""Files: ratings that are read, and models that are saved and loaded."""

import shutil
import tempfile
import weakref
from pathlib import Path

from scipy import io, sparse

import mfkernel as mf
from benchmarks import data
from benchmarks.suites.base import SECONDS, SMALL, Case, Suite, run_once

OPERATIONS = ("read csv", "read matrix market", "read npz", "save", "load")


def file(operation: str, size: str) -> Case:
    """Build the reading of ratings from a file, or the saving or loading of a model of rank 32."""
    path = Path(tempfile.mkdtemp())
    R = data.generated(size)
    model = mf.factorize(R, 32, epochs=1, rng=0)
    if operation == "read csv":
        rows = zip(R.users.tolist(), R.items.tolist(), R.values.tolist(), strict=True)
        lines = ["user,item,rating", *(f"{user},{item},{rating:.1f}" for user, item, rating in rows)]
        (path / "ratings.csv").write_text("\n".join(lines), encoding="ascii")
    elif operation == "read matrix market":
        io.mmwrite(path / "ratings.mtx", sparse.coo_array(R.to_scipy()), precision=3)
    elif operation == "read npz":
        sparse.save_npz(path / "ratings.npz", R.to_scipy())
    else:
        model.save(path / "model.npz")
    operations: dict[str, Case] = {
        "read csv": lambda: mf.read_ratings(path / "ratings.csv"),
        "read matrix market": lambda: mf.read_ratings(path / "ratings.mtx"),
        "read npz": lambda: mf.read_ratings(path / "ratings.npz"),
        "save": lambda: model.save(path / "model.npz"),
        "load": lambda: mf.load(path / "model.npz"),
    }
    case = operations[operation]
    weakref.finalize(case, shutil.rmtree, path, ignore_errors=True)
    return run_once(case)


SUITES = {"file": Suite(SECONDS, {"operation": OPERATIONS, "size": SMALL}, file)}
