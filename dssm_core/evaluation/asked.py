"""The users that the evaluation asks: all users of the test set or a sample of them, and their rows
in the files of split_by_time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_core.aliases import Ints
from dssm_core.columns import LABEL, USER
from dssm_core.data.database import connect, one_row
from dssm_core.data.sql import parquet
from dssm_core.runs.gate_report import UserSample
from dssm_core.runs.layout import TEST_FILE, TRAIN_FILE
from dssm_core.runs.run import Run


@dataclass(frozen=True)
class AskedUsers:
    """The users whose test rows are queries, for every answerer.

    folder: the files of split_by_time. ids: [n] external ids, None: all users of the test set.
    sample: what people should know of the sample, None: all users.
    """

    folder: Path
    ids: pa.Array | None = None
    sample: UserSample | None = None

    @classmethod
    def of(cls, run: Run) -> AskedUsers:
        """All users of a run's test set; a sample where there are more than
        `evaluation.max_users`.
        """
        folder = run.step("split_by_time")
        most = run.config.evaluation.max_users
        if most is None:
            return cls(folder)
        seed = run.config.seed
        with connect(folder, run.config.resources) as con:
            distinct = f"SELECT DISTINCT {USER} FROM {parquet(folder / TEST_FILE)}"
            con.execute(f"CREATE TABLE users AS {distinct}")
            (users,) = one_row(con, "SELECT count(*) FROM users")
            if users <= most:
                return cls(folder)
            ids = con.sql(f"FROM users ORDER BY {drawn(seed)} LIMIT {most}").to_arrow_table()
        own = pq.read_schema(folder / TEST_FILE).field(USER).type
        sample = UserSample(asked=most, users=users, seed=seed)
        return cls(folder, ids[USER].combine_chunks().cast(own), sample)

    def test_rows(self) -> pd.DataFrame:
        """Their rows of the test set with all columns, in the order of the file."""
        return self._read(TEST_FILE, None, [])

    def positives(self, file: str, columns: list[str]) -> pd.DataFrame:
        """Their rows of label 1 in TRAIN_FILE or TEST_FILE in the order of the file, which is by
        time.
        """
        return self._read(file, columns, [(LABEL, "=", 1)])

    def rows_at(self, events: Ints, columns: Sequence[str]) -> pd.DataFrame:
        """Columns of events [Q]: positions among the positives of the training set followed by
        those of the test set, -1 for none.

        Columns that the log lacks are left out.
        """
        rows = pd.DataFrame(index=range(len(events)))
        held = pq.read_schema(self.folder / TRAIN_FILE).names
        names = [name for name in columns if name in held]
        if names:
            parts = [self.positives(file, names) for file in (TRAIN_FILE, TEST_FILE)]
            values = pd.concat(parts, ignore_index=True).reindex(events)
            rows[names] = values[names].to_numpy()
        return rows

    def _read(self, file: str, columns: list[str] | None, filters: list[Any]) -> pd.DataFrame:
        if self.ids is not None:
            filters = [*filters, (USER, "in", self.ids)]
        table = pq.read_table(
            self.folder / file, columns=columns, filters=filters or None, partitioning=None
        )
        frame: pd.DataFrame = table.to_pandas()
        return frame


def drawn(seed: int) -> str:
    """SQL: the order in which users are drawn.

    It depends on the seed and a user's id only, so that more users in a log displace some of a
    sample, but do not draw it again.
    """
    return f"md5_number_lower(concat('{seed}:', {USER})), {USER}"
