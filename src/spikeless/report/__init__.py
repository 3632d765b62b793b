"""HTML pages, one look for all of them, and the report of runs. Reads files, never live objects."""

from spikeless.report.record import RunRecord, Summary, find_runs, read_run
from spikeless.report.run_report import write_report
from spikeless.report.table import summary_rows, summary_table

__all__ = ["RunRecord", "Summary", "find_runs", "read_run", "summary_rows", "summary_table", "write_report"]
