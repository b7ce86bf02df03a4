"""A first look at prepared rows: what each column is, and what about the rows is to be doubted."""

from n3r.checks.check import check_rows, read_rows
from n3r.checks.findings import Finding, refuse, severe_of
