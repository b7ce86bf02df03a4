"""A kept table of known customers, by which a first order is the first of all days, not of the files given.

Decisions:
- Of a customer it holds a hash, the time of the first order and a hash of its id, salted: no name or address,
  though whoever has the table and a list of addresses can find out which are in it.
- An order that the table knows as the first one stays the first: the same day may be prepared again.
- Words that stand for nobody, such as "guest", are no customers' names and stay as they are, for the warning.
- Its rows go through the exchange by customer beside the orders, under a code of their own.
"""

import secrets
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import polars as pl

from n3r.files.atomic import atomic_folder
from n3r.files.json_io import read_json, write_json
from n3r.files.reader import scan_parquet
from n3r.files.writer import POLARS_ERRORS, write
from n3r.rows.accounts import DROP, ENTITY, ENTITY_TIME, KNOWN
from n3r.rows.plausible import is_nobody
from n3r.schema import KEY, OWN, ROW

MARK = "known_customers.json"
SCHEMA = {"customer": pl.String, "time": pl.Datetime("us"), "order": pl.String}
_HASH = 16  # bytes
_TIME, _ORDER = OWN + "known_time", OWN + "known_order"


class Customers(NamedTuple):
    """The table of a folder, and a folder for what becomes of it."""

    folder: Path
    aside: Path
    salt: str
    written: int | None  # when, in nanoseconds

    @classmethod
    def open(cls, folder: str | Path, aside: Path) -> "Customers":
        """The table of a folder, a new one where there is none; ValueError for a folder of something else."""
        folder = Path(folder).expanduser()
        if not folder.is_absolute():  # notebooks run elsewhere than the command
            raise ValueError(f"known_customers: give the whole path of the folder, not {str(folder)!r}")
        try:
            salt = read_json(folder / MARK)["salt"]
            bytes.fromhex(salt)
        except (FileNotFoundError, NotADirectoryError):
            if folder.exists() and (folder.is_file() or any(folder.iterdir())):
                raise ValueError(f"{folder} is no table of known customers: give a new folder") from None
            salt = secrets.token_hex(_HASH)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{folder / MARK} is damaged: restore the table of known customers") from None
        shutil.rmtree(aside, ignore_errors=True)  # of a preparation that came to nothing
        return cls(folder, aside, salt, _written(folder))

    @property
    def parts(self) -> list[Path]:
        """Its files."""
        return sorted(self.folder.glob("part-*.parquet"))

    @property
    def n_known(self) -> int:
        """How many customers it has."""
        return sum(scan_parquet(part).select(pl.len()).collect().item() for part in self.parts)

    def hashed(self, texts: pl.Series) -> pl.Series:
        """Texts as the table has them."""
        key = bytes.fromhex(self.salt)
        hashes = [
            None if text is None else blake2b(text, key=key, digest_size=_HASH).hexdigest()
            for text in texts.cast(pl.Binary)
        ]
        return pl.Series(texts.name, hashes, dtype=pl.String)

    def hide(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Rows with hashes for their entities, but for words that stand for nobody."""
        own = keys[ENTITY]
        return keys.with_columns(own.zip_with(is_nobody(own).fill_null(False), self.hashed(own)))

    def read(self, part: Path, schema: pl.Schema) -> pl.DataFrame:
        """Known customers as rows of keys."""
        try:
            known = scan_parquet(part).collect().select(pl.col(n).cast(k) for n, k in SCHEMA.items())
        except (*POLARS_ERRORS, OSError):
            raise ValueError(f"{part} is damaged: restore the table of known customers") from None
        own = {KEY: pl.col("order"), ENTITY: pl.col("customer"), ENTITY_TIME: pl.col("time")}
        own |= {ROW: pl.lit(0), DROP: pl.lit(KNOWN)}
        return known.select(own.get(name, pl.lit(None)).cast(k).alias(name) for name, k in schema.items())

    def not_after(self, orders: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        """Orders (entity, entity time, id) that are, or come before, the first one that the table knows."""
        first = known.select(ENTITY, pl.col(ENTITY_TIME).alias(_TIME), pl.col(KEY).alias(_ORDER))
        both = orders.join(first, on=ENTITY, how="left", maintain_order="left")
        time, known_time = pl.col(ENTITY_TIME), pl.col(_TIME)
        before = time.is_not_null() & (known_time.is_null() | (time < known_time))
        at_once = both.filter(time.eq_missing(known_time) & pl.col(_ORDER).is_not_null())
        again = at_once.filter(self.hashed(at_once[KEY]) == at_once[_ORDER])
        kept = pl.col(_ORDER).is_null() | before | pl.col(KEY).is_in(again[KEY].implode())
        return both.filter(kept).select(orders.columns)

    def write(self, first: pl.DataFrame, known: pl.DataFrame) -> None:
        """Keep a bucket's customers with their first orders, else as they were known."""
        seen = first.select(customer=ENTITY, time=ENTITY_TIME, order=self.hashed(first[KEY]))
        others = known.filter(~pl.col(ENTITY).is_in(first[ENTITY].implode()))
        every = pl.concat([seen, others.select(customer=ENTITY, time=ENTITY_TIME, order=KEY)])
        if every.height:  # a bucket that is written again has the same name
            name = blake2b(every["customer"].min().encode(), digest_size=_HASH).hexdigest()
            write(every, self.aside / f"part-{name}.parquet")

    def keep(self) -> None:
        """Put what was written in the place of the table; ValueError where another run did so meanwhile."""
        if _written(self.folder) != self.written:
            raise ValueError(f"another run has changed {self.folder} meanwhile: run this one again")
        with atomic_folder(self.folder, "known customers", MARK) as aside:
            for part in self.aside.glob("part-*.parquet"):
                shutil.move(part, aside / part.name)
            write_json(aside / MARK, {"salt": self.salt})
        shutil.rmtree(self.aside, ignore_errors=True)


def _written(folder: Path) -> int | None:
    """When a table was written; None where there is none."""
    mark = folder / MARK
    return mark.stat().st_mtime_ns if mark.is_file() else None
