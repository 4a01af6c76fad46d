"""Whether rows are timed: the argument, else the environment, else yes."""

import os
from typing import Literal, cast, get_args

from bitfold.errors import UsageError

TuneMode = Literal["auto", "cached", "off"]
TUNE_VARIABLE = "BITFOLD_TUNE"


def tune_mode(tune: str | None = None) -> TuneMode:
    """``tune``, or else BITFOLD_TUNE, or else auto; raises UsageError on another word.

    ``auto`` times what is not remembered, ``cached`` times nothing, ``off`` takes the first row of
    the table that fits. Results are the same; only speed depends on it.
    """
    mode = tune or os.environ.get(TUNE_VARIABLE) or "auto"
    if mode not in get_args(TuneMode):
        raise UsageError(
            f"no way of tuning is called {mode!r}",
            where="tune" if tune else TUNE_VARIABLE,
            todo=f"Use one of: {', '.join(get_args(TuneMode))}.",
        )
    return cast(TuneMode, mode)
