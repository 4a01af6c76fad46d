"""The log of a training: one CSV row an epoch, and the same with the whole record as JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitfold.files import write_atomically

LOG_SCHEMA = "bitfold/training-log/1"
COLUMNS = ("epoch", "learning_rate", "loss", "train_accuracy", "test_accuracy", "seconds")


def write_log(
    stem: Path, history: Sequence[Mapping[str, float]], record: Mapping[str, object]
) -> None:
    """Write ``stem``.csv and ``stem``.json, each whole or not at all; raises OutputError.

    Both hold all epochs so far, those before an interruption too.
    """
    write_atomically(stem.with_name(stem.name + ".csv"), csv_text(history).encode())
    fields = {"schema": LOG_SCHEMA, **record, "history": [dict(entry) for entry in history]}
    text = json.dumps(fields, indent=2, allow_nan=False)
    write_atomically(stem.with_name(stem.name + ".json"), (text + "\n").encode())


def csv_text(history: Sequence[Mapping[str, float]]) -> str:
    """A header and one row an epoch; empty where an epoch has no such number."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for entry in history:
        writer.writerow({**entry, "epoch": int(entry["epoch"])})
    return stream.getvalue()
