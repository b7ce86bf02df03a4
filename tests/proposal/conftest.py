"""A small shop's orders in the many ways that programs write them."""

import random
from datetime import datetime, timedelta
from pathlib import Path

import pytest

GIVEN = [
    "Anina", "Belto", "Corvin", "Dalmer", "Elshi", "Fenno", "Garish", "Hulda", "Imari", "Jorun", "Kasimo",
    "Lenka", "Mirto", "Nasrin", "Ovid",
]  # fmt: skip
FAMILY = [
    "Abernal", "Bostrik", "Cavendo", "Drumond", "Eskelin", "Farqua", "Gunders", "Holmgar", "Iverna", "Jolind",
    "Karsten", "Lomart",
]  # fmt: skip
N = 60
START = datetime(2025, 3, 1, 9)


def orders(n: int = N, seed: int = 0, step: timedelta = timedelta(hours=31)) -> list[dict[str, object]]:
    """Rows of made-up orders: every 6th is fraud."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        given, family = rng.choice(GIVEN), rng.choice(FAMILY)
        found.append(
            {
                "order_no": f"B-{1001 + i}",
                "e_mail": f"{given}.{family}{i}@post.example".lower(),
                "card_holder": f"{given} {family}",
                "amount": round(rng.uniform(3, 4000), 2),
                "items": rng.randint(1, 9),
                "country": rng.choice(["FR", "DE", "CH"]),
                "created": START + i * step,
                "fraud": i % 6 == 4,
            }
        )
    return found


@pytest.fixture
def write(tmp_path):
    """Write rows, changed column by column, as a file of CSV; gives its path."""

    def written(
        changes: dict | None = None, name: str = "orders.csv", rows: list | None = None, **how
    ) -> Path:
        path = tmp_path / name
        path.write_bytes(as_csv(changed(rows or orders(), changes or {}), **how))
        return path

    return written


def changed(rows: list[dict], changes: dict[str, object]) -> list[dict]:
    """Rows with columns made anew, by a function of the row and its number or by a list; None: left out."""
    rows = [dict(row) for row in rows]
    for column, change in changes.items():
        for i, row in enumerate(rows):
            if change is None:
                row.pop(column, None)
            else:
                row[column] = change[i % len(change)] if isinstance(change, list) else change(row, i)
    return rows


def text(value: object) -> str:
    """A value as a simple program writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else str(value)


def as_csv(
    rows: list[dict], separator: str = ",", encoding: str = "utf-8", quote: str = '"', end: str = "\n", **odd
) -> bytes:
    """Rows as CSV: a cell with a separator, quote or line end is quoted.

    `odd` may be `header`, whether there is one; `before`, a line above it; `again`, the row at which the
    header comes again; `short`, the row of which three cells are left.
    """

    def cell(value: object) -> str:
        plain = text(value)
        special = any(sign in plain for sign in (separator, quote, "\n", "\r"))
        return f"{quote}{plain.replace(quote, 2 * quote)}{quote}" if special else plain

    header = separator.join(map(cell, rows[0]))
    lines = [
        separator.join(list(map(cell, row.values()))[: 3 if i == odd.get("short") else None])
        for i, row in enumerate(rows)
    ]
    if "again" in odd:
        lines.insert(odd["again"], header)
    lines = [header, *lines] if odd.get("header", True) else lines
    return (odd.get("before", "") + end.join(lines) + end).encode(encoding)
