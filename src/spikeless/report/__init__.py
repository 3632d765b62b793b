"""HTML pages, one look for all of them, and the report of runs. Reads files, never live objects."""

from spikeless.report.finding import find_runs, read_runs
from spikeless.report.record import RunRecord, Summary, read_run
from spikeless.report.run_report import write_report
from spikeless.report.table import run_rows, runs_table, summary_rows, summary_table

__all__ = [
    "RunRecord",
    "Summary",
    "find_runs",
    "read_run",
    "read_runs",
    "run_rows",
    "runs_table",
    "summary_rows",
    "summary_table",
    "write_report",
]
