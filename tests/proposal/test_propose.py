"""Files as people have them, and the column map or the sentence that is proposed for each."""

from datetime import timedelta

import pytest

from n3r.proposal.propose import propose
from n3r.schema import ColumnMap

from .conftest import FAMILY, GIVEN, orders


def at(form: str):
    """The order's time in a format."""
    return {"created": lambda row, _: row["created"].strftime(form)}


def money(before: str = "", thousands: str = "", point: str = ".", behind: str = ""):
    """The amount with marks and signs."""

    def written(row: dict, _: int) -> str:
        whole = f"{row['amount']:,.2f}".replace(",", "T").replace(".", point).replace("T", thousands)
        return before + whole + behind

    return {"amount": written}


def is_fraud(i: int) -> bool:
    return i % 6 == 4


def label(*values: object, name: str = "fraud"):
    """The label as other values: of legitimate orders, then of frauds; None leaves the cell empty."""
    return {"fraud": None, name: lambda row, i: values[1 if i % 6 == 4 else 0]}


CASES = {
    # how files are written
    "comma": ({}, {}, {"csv.separator": ",", "csv.encoding": "utf-8", "csv.header": True}),
    "semicolon": ({}, {"separator": ";"}, {"csv.separator": ";"}),
    "tab": ({}, {"separator": "\t"}, {"csv.separator": "\t"}),
    "bar": ({}, {"separator": "|"}, {"csv.separator": "|"}),
    "tsv": ({}, {"separator": "\t", "name": "orders.tsv"}, {"csv.separator": "\t"}),
    "tsv with semicolons": ({}, {"separator": ";", "name": "orders.tsv"}, {"csv.separator": ";"}),
    "semicolon and decimal comma": (
        money(point=","),
        {"separator": ";"},
        {"csv.separator": ";", "number_format": "de"},
    ),
    "quoted commas": ({"note": lambda r, i: "a, b"}, {}, {"csv.separator": ","}),
    "commas in cells of semicolons": (
        {"note": ["red, blue", "a, b, c", "x"]},
        {"separator": ";"},
        {"csv.separator": ";"},
    ),
    "byte order mark": ({}, {"encoding": "utf-8-sig"}, {"csv.encoding": "utf-8", "id": "order_no"}),
    "windows 1252": (
        {"card_holder": ["Zoë Müller", "René Bañó", "Søren Åse"]},
        {"encoding": "cp1252"},
        {"csv.encoding": "cp1252"},
    ),
    "windows 1252, few accents": (
        {"card_holder": lambda r, i: "Jürgen Abernal" if i == 7 else r["card_holder"]},
        {"encoding": "cp1252"},
        {"csv.encoding": "cp1252"},
    ),
    "windows 1252 with euro signs": (
        money(behind=" €"),
        {"encoding": "cp1252"},
        {"csv.encoding": "cp1252", "number_format": "plain"},
    ),
    "windows 1250": (
        {"card_holder": ["Łukasz Żółć", "Świętosław Gęś", "Ján Dvořák"]},
        {"encoding": "cp1250"},
        {"csv.encoding": "cp1250"},
    ),
    "windows 1251": (
        {"card_holder": ["Иван Петров", "Ольга Ильина", "Юрий Щукин"]},
        {"encoding": "cp1251"},
        {"csv.encoding": "cp1251"},
    ),
    "utf-16 of Excel": (
        {"card_holder": ["Zoë Müller", "René Bañó"]},
        {"encoding": "utf-16", "separator": "\t"},
        {"csv.encoding": "utf-16", "csv.separator": "\t"},
    ),
    "utf-16 without mark": ({}, {"encoding": "utf-16-le"}, {"csv.encoding": "utf-16-le"}),
    "single quotes": (
        {"note": ["a, b", "c, 'd'", "e"]},
        {"quote": "'"},
        {"csv.quote": "'", "csv.separator": ","},
    ),
    "cr lf": ({}, {"end": "\r\n"}, {"id": "order_no", "label": "fraud"}),
    "cr": ({}, {"end": "\r"}, {"id": "order_no", "label": "fraud"}),
    "sep line": ({}, {"separator": ";", "before": "sep=;\n"}, {"csv.separator": ";", "id": "order_no"}),
    "no header": (
        {},
        {"header": False},
        {"csv.header": False, "id": "column_1", "text": ["column_2", "column_3"], "label": "column_8"},
    ),
    "no header, semicolons": (
        money(point=","),
        {"header": False, "separator": ";"},
        {"csv.header": False, "number_format": "de"},
    ),
    # numbers
    "thousands commas": (money(thousands=","), {}, {"number_format": "en", "numeric": ["amount", "items"]}),
    "thousands points": (
        money(thousands=".", point=","),
        {},
        {"number_format": "de", "numeric": ["amount", "items"]},
    ),
    "thousands blanks": (money(thousands=" ", point=","), {"separator": ";"}, {"number_format": "fr"}),
    "thousands no-break": (money(thousands="\u202f", point=","), {"separator": ";"}, {"number_format": "fr"}),
    "thousands apostrophes": (money(thousands="'"), {}, {"number_format": "ch"}),
    "dollars before": (money("$", ","), {}, {"number_format": "en", "numeric": ["amount", "items"]}),
    "euros behind": (money("", ".", ",", " €"), {"separator": ";"}, {"number_format": "de"}),
    "currency code": (money("CHF ", "'"), {}, {"number_format": "ch", "numeric": ["amount", "items"]}),
    "percent": ({"discount": lambda r, i: f"{i % 40}%"}, {}, {"numeric": ["amount", "items", "discount"]}),
    "plain numbers": ({}, {}, {"number_format": None, "numeric": ["amount", "items"]}),
    "whole numbers of thousands": (
        {"amount": lambda r, i: f"{r['amount']:,.0f}"},
        {},
        {"guess": "thousands or before decimals"},
    ),
    "points that may be thousands": (
        {"amount": lambda r, i: f"{1 + i % 9}.{100 + i}"},
        {},
        {"number_format": None, "guess": "thousands or before decimals"},
    ),
    "points that another column decides": (
        {"amount": lambda r, i: f"{1 + i % 9}.{100 + i}", "fee": lambda r, i: f"{i % 7},50"},
        {"separator": ";"},
        {"number_format": "de"},
    ),
    "a cell that is no number": (
        {"amount": lambda r, i: "n. v." if i == 11 else r["amount"]},
        {},
        {"numeric": ["items"], "left_out": "row 12 of orders.csv, of the shape 'a. a.'"},
    ),
    "codes with leading zeros": (
        {"shop_code": lambda r, i: f"0{i % 4}"},
        {},
        {"categorical": ["country", "shop_code"]},
    ),
    # times
    "iso": ({}, {}, {"time": "created", "time_format": None}),
    "iso t z": (at("%Y-%m-%dT%H:%M:%SZ"), {}, {"time": "created", "time_format": None}),
    "iso with offset": (at("%Y-%m-%d %H:%M:%S+01:00"), {}, {"time": "created", "time_format": None}),
    "day first": (at("%d/%m/%Y %H:%M"), {}, {"time_format": "%d/%m/%Y %H:%M"}),
    "month first": (at("%m/%d/%Y %H:%M"), {}, {"time_format": "%m/%d/%Y %H:%M"}),
    "points": (at("%d.%m.%Y"), {}, {"time_format": "%d.%m.%Y"}),
    "points and seconds": (at("%d.%m.%Y %H:%M:%S"), {}, {"time_format": "%d.%m.%Y %H:%M:%S"}),
    "comma before the clock": (at("%d.%m.%Y, %H:%M"), {}, {"time_format": "%d.%m.%Y, %H:%M"}),
    "year first": (at("%Y/%m/%d %H:%M"), {}, {"time_format": "%Y/%m/%d %H:%M"}),
    "name of the month": (at("%d-%b-%Y"), {}, {"time_format": "%d-%b-%Y"}),
    "long name of the month": (at("%B %d, %Y"), {}, {"time_format": "%B %d, %Y"}),
    "am and pm": (at("%m/%d/%Y %I:%M %p"), {}, {"time_format": "%m/%d/%Y %I:%M %p"}),
    "seconds since 1970": (
        {"created": lambda r, _: int(r["created"].timestamp())},
        {},
        {"time_format": "epoch"},
    ),
    "digits of a day": (at("%Y%m%d"), {}, {"time_format": "%Y%m%d"}),
    "digits of a moment": (at("%Y%m%d%H%M%S"), {}, {"time_format": "%Y%m%d%H%M%S"}),
    "two digits of a year": (at("%d.%m.%y"), {}, {"time_format": "%d.%m.%y"}),
    "as Java writes": (at("%a %b %d %H:%M:%S UTC %Y"), {}, {"time_format": "%a %b %d %H:%M:%S UTC %Y"}),
    "as mail has it": (at("%a, %d %b %Y %H:%M:%S +0000"), {}, {"time_format": "%a, %d %b %Y %H:%M:%S %z"}),
    "as a log has it": (at("%d/%b/%Y:%H:%M:%S +0000"), {}, {"time_format": "%d/%b/%Y:%H:%M:%S %z"}),
    "day or month": (
        {"created": lambda r, i: f"{1 + i * 7 % 12:02}/{1 + i * 5 % 12:02}/2025 14:22"},
        {},
        {"guess": "'created' can be read with the day first"},
    ),
    "day or month, in the file's order": (
        {"created": lambda r, i: f"{1 + i // 5:02}/{1 + i % 5:02}/2025"},
        {},
        {"time_format": "%m/%d/%Y", "note": "the rows are in its order"},
    ),
    "day or month, as another column": (
        {
            "shipped": at("%d/%m/%Y")["created"],
            "created": lambda r, i: f"{1 + i * 7 % 12:02}/{1 + i * 5 % 12:02}/2025",
        },
        {},
        {"time": "created", "time_format": "%d/%m/%Y"},
    ),
    "no time": ({"created": None}, {}, {"time": None, "split_by": "random", "note": "split at random"}),
    "several times": (
        {
            "shipped_at": lambda r, _: r["created"] + timedelta(days=1),
            "birth_date": at("1980-%m-%d")["created"],
        },
        {},
        {"time": "created", "ignore": ["shipped_at", "birth_date"]},
    ),
    "times of two forms": (
        {"created": lambda r, i: f"{r['created']:%d/%m/%Y}" if i % 3 else f"{r['created']:%Y-%m-%d}"},
        {},
        {"time": None, "left_out": "times of several forms, of which '%d/%m/%Y' reads 67%"},
    ),
    "scientific numbers": (
        {"amount": lambda r, i: f"{r['amount']:.3e}"},
        {},
        {"number_format": None, "numeric": ["amount", "items"]},
    ),
    "few unreadable times": (
        {"created": lambda r, i: "unknown" if i == 8 else r["created"]},
        {"rows": orders(400)},
        {"time": "created", "note": "1 rows have no readable 'created'"},
    ),
    # the label
    "yes and no": (label("no", "yes"), {}, {"label_values": {"no": 0, "yes": 1}}),
    "y and n": (label("N", "Y"), {}, {"label_values": {"N": 0, "Y": 1}}),
    "true and false": (label("False", "True"), {}, {"label_values": {"false": 0, "true": 1}}),
    "0 and 1": (label(0, 1), {}, {"label_values": {"0": 0, "1": 1}}),
    "ja und nein": (
        label("nein", "ja", name="Betrug"),
        {},
        {"label": "Betrug", "label_values": {"nein": 0, "ja": 1}},
    ),
    "oui et non": (
        label("non", "oui", name="fraude"),
        {},
        {"label": "fraude", "label_values": {"non": 0, "oui": 1}},
    ),
    "fraud and legit": (
        label("legit", "fraud", name="x7"),
        {},
        {"label": "x7", "label_values": {"legit": 0, "fraud": 1}},
    ),
    "good and bad": (
        label("good", "bad", name="outcome"),
        {},
        {"label": "outcome", "label_values": {"good": 0, "bad": 1}},
    ),
    "is it legitimate": (
        label("yes", "no", name="is_legit"),
        {},
        {"label": "is_legit", "label_values": {"yes": 0, "no": 1}},
    ),
    "codes of chargebacks": (
        {
            "fraud": None,
            "chargeback_code": lambda r, i: ("10.4", "4837", "UA02")[i // 6 % 3] if i % 6 == 4 else None,
        },
        {"rows": orders(120)},
        {"label": "chargeback_code", "label_values": {"": 0, "10.4": 1, "4837": 1, "UA02": 1}},
    ),
    "a cross or nothing": (label(None, "x"), {}, {"label_values": {"": 0, "x": 1}}),
    "any two": (label("A", "B", name="label"), {}, {"label": "label", "label_values": {"A": 0, "B": 1}}),
    "pending ones": (
        {"fraud": lambda r, i: "pending" if i % 10 == 0 else "fraud" if r["fraud"] else "legit"},
        {},
        {"label_values": {"legit": 0, "fraud": 1}, "other_labels": "drop", "note": "decides nothing"},
    ),
    "in capitals, too": (
        {"fraud": lambda r, i: ("NO", "no")[i % 2] if not r["fraud"] else "Yes"},
        {},
        {"label_values": {"NO": 0, "no": 0, "Yes": 1}},
    ),
    "status words": (
        {"fraud": None, "status": lambda r, i: "chargeback" if is_fraud(i) else ("paid", "completed")[i % 2]},
        {},
        {"label": "status", "label_values": {"paid": 0, "completed": 0, "chargeback": 1}},
    ),
    "three codes": (
        {"fraud": None, "status": lambda r, i: "F" if is_fraud(i) else "NNNI"[i % 4]},
        {},
        {"label": "status", "guess": "all but the commonest"},
    ),
    "two that may be the label": (
        {"fraud": None, "flag_a": ["no", "no", "no", "yes"], "flag_b": ["no", "yes", "no", "no", "no"]},
        {},
        {"guess": "Several columns may be the label"},
    ),
    # roles
    "customers": ({"customer_id": lambda r, i: f"C{i * 7 % 53:04}"}, {}, {"entity": "customer_id"}),
    "few customers": (
        {"customer_id": lambda r, i: f"C{i % 20:04}"},
        {},
        {"entity": None, "left_out": "60 rows of 20 customers"},
    ),
    "a column of one value": (
        {"version": ["v1"]},
        {},
        {"ignore": ["version"], "left_out": "all rows have one value"},
    ),
    "an empty column": ({"voucher": [None]}, {}, {"ignore": ["voucher"], "left_out": "no row has a value"}),
    "row numbers": ({"": lambda r, i: i, **{}}, {}, {"ignore": [""], "left_out": "no name of its own"}),
    "a count of the rows": (
        {"line": lambda r, i: i + 1},
        {},
        {"ignore": ["line"], "left_out": "counts the rows"},
    ),
    "gender": ({"gender": ["f", "m", "d"]}, {}, {"groups": ["gender"]}),
    "telephone numbers": (
        {"phone": lambda r, i: f"+49 151 {2000000 + 37 * i}"},
        {},
        {"ignore": ["phone"], "left_out": "a telephone number"},
    ),
    "ip addresses": (
        {"ip": lambda r, i: f"10.{i % 7}.{i}.3"},
        {},
        {"ignore": ["ip"], "left_out": "an IP address"},
    ),
    "street": (
        {"street": lambda r, i: f"Lindenweg {i + 1}"},
        {},
        {"ignore": ["street"], "left_out": "an address"},
    ),
    "notes": (
        {"note": lambda r, i: f"please leave the parcel number {i} behind the green door, thank you"},
        {},
        {"ignore": ["note"], "left_out": "long text"},
    ),
    "a leak": (
        {"chargeback_eur": lambda r, i: round(20 + i / 3, 2) if r["fraud"] else 0.0},
        {"rows": orders(600)},
        {"ignore": ["chargeback_eur"], "left_out": "it tells the label: it alone ranks class 1"},
    ),
    "a leak by its gaps": (
        {"dispute_fee": lambda r, i: 15 + i if r["fraud"] else None},
        {"rows": orders(600)},
        {"ignore": ["dispute_fee"]},
    ),
    "German names of columns": (
        {
            "order_no": None,
            "e_mail": None,
            "card_holder": None,
            "fraud": None,
            "Bestellnummer": lambda r, i: 70_000 + 13 * i,
            "Vorname": lambda r, i: GIVEN[i % 15],
            "Nachname": lambda r, i: FAMILY[i % 12],
            "Betrugsfall": lambda r, i: "ja" if is_fraud(i) else "nein",
        },
        {"separator": ";"},
        {"id": "Bestellnummer", "text": ["Vorname", "Nachname"], "label": "Betrugsfall"},
    ),
    "names without addresses": (
        {
            "e_mail": None,
            "a": lambda r, i: r["card_holder"],
            "b": lambda r, i: r["card_holder"].upper(),
            "card_holder": None,
        },
        {},
        {"text": ["a", "b"]},
    ),
    "names that only their addresses tell": (
        {"p": lambda r, i: r["card_holder"], "card_holder": None},
        {},
        {"text": ["e_mail", "p"]},
    ),
    "what an order is worth": ({}, {}, {"amount": "amount", "numeric": ["amount", "items"]}),
    "in German": (
        {"Rechnungsbetrag_EUR": lambda r, i: r["amount"], "amount": None},
        {},
        {"amount": "Rechnungsbetrag_EUR"},
    ),
    "two that it may be": ({"order_total": lambda r, i: r["amount"] + 1}, {}, {"amount": None}),
    "one that is less than it": (
        {"gift_card_amount": lambda r, i: r["amount"] / 2},
        {},
        {"amount": "amount"},
    ),
    "some are refunds": ({"amount": lambda r, i: r["amount"] * (-1) ** i}, {}, {"amount": None}),
    "some are no numbers": (
        {"amount": lambda r, i: "n/a" if i == 30 else r["amount"]},
        {},
        {"amount": None, "left_out": "1 cells are no number"},
    ),
    "repeated ids": (
        {"order_no": lambda r, i: f"B-{1001 + i - (i == 30)}"},
        {},
        {"id": "order_no", "note": "1 of 60 rows repeat an 'order_no'"},
    ),
    "a header twice": (
        {},
        {"rows": orders(), "again": 30},
        {"id": "order_no", "note": "row 31 of orders.csv repeats the header"},
    ),
    "a row of too few cells": (
        {},
        {"rows": orders(), "short": 20},
        {"note": "1 of 60 rows cannot be read: row 21 of orders.csv has 3 cells"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_proposed_for_a_file(write, case):
    changes, how, expected = CASES[case]
    path = write(changes, **how)
    proposal = propose([str(path)])
    ColumnMap(**proposal.content)
    said = {"note": proposal.notes, "guess": proposal.guesses, "left_out": list(proposal.left_out.values())}
    for key, value in expected.items():
        if key in said:
            assert any(value in line for line in said[key]), said
        else:
            found = proposal.content
            for part in key.split("."):
                found = found.get(part) if found is not None else None
            assert found == value, (key, said)
    if "guess" not in expected:
        assert proposal.guesses == []
    assert (
        set(proposal.left_out.values()) == set()
        or "ignore" in expected
        or "left_out" in expected
        or len(proposal.left_out) < 3
    )
