"""Compare a table with a committed expected one, within stated tolerances."""

import numpy as np
import pandas as pd


def differences(
    found: pd.DataFrame, expected: pd.DataFrame, keys: list[str], tolerance: dict[str, float]
) -> list[str]:
    """One line per way in which `found` differs from `expected`; empty when it does not.

    Args:
        keys: columns that together name a row; order of rows does not matter.
        tolerance: column -> largest absolute difference allowed. A column of `expected` that is neither a key nor named here
            must be equal. Columns that only `found` has are not looked at: leave out of the expected table what differs from
            machine to machine, such as seconds.
    """
    lines = [f"column {c} is missing" for c in expected if c not in found]
    lines += [
        f"rows are not told apart by {keys}" for t in (found, expected) if not lines and t.duplicated(keys).any()
    ]
    if lines:
        return lines
    a, b = found.set_index(keys), expected.set_index(keys)
    lines += [f"row {i} is missing" for i in b.index.difference(a.index)]
    lines += [f"row {i} is unexpected" for i in a.index.difference(b.index)]
    for row in b.index.intersection(a.index):
        for column in b.columns:
            x, y, allowed = a.loc[row, column], b.loc[row, column], tolerance.get(column)
            if pd.isna(x) and pd.isna(y):
                continue
            same = x == y if allowed is None else np.abs(float(x) - float(y)) <= allowed  # NaN on one side: never
            if not same:
                lines.append(f"row {row}: {column} is {x}, expected {y}" + (f" +- {allowed}" if allowed else ""))
    return lines
