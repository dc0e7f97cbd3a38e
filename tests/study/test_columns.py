"""Every column is declared once, with its type and meaning, and none that no table has."""

from palimpsest.study.columns import COLUMNS
from palimpsest.study.tables import TABLES


def test_every_column_is_declared_and_every_declaration_used():
    used = [column for columns in TABLES.values() for column in columns]
    assert set(used) == set(COLUMNS)
    assert all(len(set(columns)) == len(columns) for columns in TABLES.values())
    assert {kind for kind, _ in COLUMNS.values()} <= {"str", "float", "int", "bool"}
