"""A shop's export as a spreadsheet writes it: synthetic orders under other names, in another dialect.

Decisions:
- UTF-16 with tabs, decimal commas, euro signs and days before months: what Excel writes in much of Europe.
- One column says what is known only after the order, one is empty, and one is the same in every row.
- The newest orders make a second file, which nobody has judged yet.

    python -m n3r.synthetic.shop FOLDER [ORDERS]
"""

import argparse
from pathlib import Path

import polars as pl

from n3r.synthetic.orders import DATE_FORMAT, generate_orders

# The shop's names of columns that are written as they are.
NAMES = {
    "Order no.": "objectId",
    "Customer no.": "customerId",
    "E-mail": "emailAddress",
    "Billing name": "billingAddressName",
    "Customer": "customerName",
    "Card holder": "paymentAccountHolderName",
    "Country": "marketplaceCountryCode",
}
COUNTS = {
    "Items": "itemsInBasket",
    "Failed payments": "failedPayments24h",
    "Orders by card": "ordersPerCard24h",
}
MONEY = {"Amount": "orderAmount", "Shipping": "shippingFee"}
AGES = {"Account age (days)": "accountAgeDays", "Device age (days)": "deviceAgeDays"}
NEW = 0.1  # share of the orders that are not judged yet


def shop_orders(n_orders: int, seed: int = 0) -> pl.DataFrame:
    """Orders by time as texts, with what is known of them later."""
    orders = generate_orders(n_orders, seed).filter(pl.col("status").is_in(["F", "I", "N"]))
    time = pl.col("transactionDate").str.to_datetime(DATE_FORMAT)
    is_fraud = pl.col("status") != "N"
    numbers = {name: pl.col(column).cast(pl.Int64) for name, column in COUNTS.items()}
    return orders.sort(time).select(
        **{name: pl.col(column) for name, column in NAMES.items()},
        **{"Ordered at": time.sort().dt.strftime("%d.%m.%Y %H:%M")},
        **{name: _money(column) for name, column in MONEY.items()},
        **{name: _comma(pl.col(column).round(1).cast(pl.String)) for name, column in AGES.items()},
        **numbers,
        **{
            "Refunded": pl.when(is_fraud).then(_money("orderAmount")),
            "Voucher": None,
            "System": pl.lit("v2"),
        },
        Fraud=pl.when(is_fraud).then(pl.lit("yes")).otherwise(pl.lit("no")),
    )


def write_shop(folder: str | Path, n_orders: int = 20_000, seed: int = 0) -> None:
    """Write orders.csv and, of the newest orders, new.csv, which lacks what is known later."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    orders = shop_orders(n_orders, seed)
    n_judged = round((1 - NEW) * orders.height)
    _write(orders.head(n_judged), folder / "orders.csv")
    _write(orders.slice(n_judged).drop("Refunded", "Fraud"), folder / "new.csv")


def _write(orders: pl.DataFrame, path: Path) -> None:
    path.write_bytes(orders.write_csv(separator="\t", line_terminator="\r\n").encode("utf-16"))


def _money(column: str) -> pl.Expr:
    """Amounts such as 1.234,56 €."""
    cents = (pl.col(column) * 100).round().cast(pl.Int64)
    whole, rest = (cents // 100).cast(pl.String), (cents % 100).cast(pl.String).str.zfill(2)
    grouped = (
        whole.str.reverse().str.replace_all(r"(\d{3})", "${1}.").str.reverse().str.strip_chars_start(".")
    )
    return pl.format("{},{} €", grouped, rest)


def _comma(number: pl.Expr) -> pl.Expr:
    return number.str.replace(".", ",", literal=True)


def main() -> None:
    """Write the files into the folder that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int, nargs="?", default=20_000)
    arguments = parser.parse_args()
    write_shop(arguments.folder, arguments.rows)


if __name__ == "__main__":
    main()
