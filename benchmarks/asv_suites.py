"""What asv follows over the commits; its names and parameters are strings and numbers that never change."""

import subprocess
import sys

import mfkernel as mf
from benchmarks import cases


class Epoch:
    """Seconds of one pass over the ratings."""

    param_names = ("engine", "size", "k")
    params = (list(cases.ENGINES), list(cases.SIZES), list(cases.RANKS))
    timeout = 300

    def setup(self, engine: str, size: str, k: int) -> None:
        name = f"{engine}, {size}, k={k}"
        if name not in cases.EPOCHS:
            raise NotImplementedError  # asv's way to leave out a combination
        self.epoch = cases.epoch(name)

    def time_epoch(self, engine: str, size: str, k: int) -> None:
        self.epoch()


class Quality:
    """Held-out RMSE of the plain call, so that a faster but worse commit shows."""

    param_names = ("schedule", "size", "k")
    params = (["sequential", "hogwild", "blocks"], list(cases.SIZES), list(cases.RANKS))
    unit = "RMSE"

    def track_rmse(self, schedule: str, size: str, k: int) -> float:
        return cases.held_out_rmse(cases.ratings(size), k, schedule)


class Fit:
    """The plain call from ratings to factors."""

    param_names = ("size",)
    params = (list(cases.SIZES),)

    def setup(self, size: str) -> None:
        self.ratings = cases.ratings(size)
        mf.factorize(self.ratings, 32, epochs=1)

    def time_factorize(self, size: str) -> None:
        mf.factorize(self.ratings, 32)

    def peakmem_factorize(self, size: str) -> None:
        mf.factorize(self.ratings, 32)


class Start:
    """A fresh process."""

    def time_import(self) -> None:
        subprocess.run([sys.executable, "-c", "import mfkernel"], check=True)

    def time_first_call_with_warm_cache(self) -> None:
        code = "import mfkernel as mf; mf.factorize([[5, 3, 0], [4, 0, 1]], 2)"
        subprocess.run([sys.executable, "-c", code], check=True)
