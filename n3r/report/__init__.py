"""What a run says to people: the report of a run, and figures and pages in one style."""

from n3r.report.run import headline, summary, write_report
