"""Records on disk: their lines, results folders, reading many of them, and data frames."""

from bench.store.frame import ListedRun, list_runs, load_records
from bench.store.lines import MIGRATIONS, NewerVersionError, RunFacts, StoreWarning, store_errors
from bench.store.record_store import DAMAGED, RECORD_FILES, RECORDS, SUITE_FILE, RecordStore, is_of_runs
from bench.store.record_tables import read_values
from bench.store.stored_records import Source, iter_records, latest_runs, read_records, read_suite_info, record_files

__all__ = [
    "DAMAGED",
    "MIGRATIONS",
    "RECORDS",
    "RECORD_FILES",
    "SUITE_FILE",
    "ListedRun",
    "NewerVersionError",
    "RecordStore",
    "RunFacts",
    "Source",
    "StoreWarning",
    "is_of_runs",
    "iter_records",
    "latest_runs",
    "list_runs",
    "load_records",
    "read_records",
    "read_suite_info",
    "read_values",
    "record_files",
    "store_errors",
]
