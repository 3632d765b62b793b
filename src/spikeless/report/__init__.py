"""HTML reports of run folders, one look for a run and a comparison. Reads files, never live objects."""

from spikeless.report.page import write_report
from spikeless.report.record import RunRecord, Summary, find_runs, read_run
from spikeless.report.table import summary_rows, summary_table

__all__ = ["RunRecord", "Summary", "find_runs", "read_run", "summary_rows", "summary_table", "write_report"]
