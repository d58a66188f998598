"""The journal in one SQLite file, for one process."""

from bridge.journal.stores.sqlite.file import MEMORY
from bridge.journal.stores.sqlite.journal import SqliteJournal, now_ms, open_journal

__all__ = ["MEMORY", "SqliteJournal", "now_ms", "open_journal"]
