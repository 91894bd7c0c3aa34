"""The journal's tables, and how a journal of an older version becomes one of this."""

import sqlite3

VERSION = 3

SCHEMA = f"""
CREATE TABLE url (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'new',  -- see State
    tries INTEGER,                      -- requests in the last run that asked
    status INTEGER,                     -- HTTP, of the last answer
    reason TEXT,                        -- why there is no image
    size INTEGER,                       -- bytes of the stored file
    width INTEGER, height INTEGER,      -- pixels, upright
    sha256 BLOB,                        -- of the stored file
    time REAL,                          -- unix seconds
    etag TEXT, last_modified TEXT       -- what the host knows the stored image by
);
CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,          -- from the journal's folder, or absolute
    url_id INTEGER NOT NULL REFERENCES url (id),
    run INTEGER NOT NULL,               -- the last run whose sources named it
    size INTEGER, sha256 BLOB,          -- of the file when it was last stored or verified
    mtime_ns INTEGER                    -- its time then
);
CREATE INDEX file_by_url ON file (url_id);
CREATE TABLE problem (place TEXT, reason TEXT);
CREATE TABLE run (id INTEGER PRIMARY KEY, started REAL);
PRAGMA user_version = {VERSION};
"""

STEPS = {  # what each older version lacks, the oldest first
    1: ["ALTER TABLE file ADD COLUMN mtime_ns INTEGER"],  # and its sides of images that EXIF turns are as stored
    2: ["ALTER TABLE url ADD COLUMN etag TEXT", "ALTER TABLE url ADD COLUMN last_modified TEXT"],
}


def migrate(database: sqlite3.Connection, version: int) -> None:
    """Bring a journal of `version`, 0 for an empty file, up to this one's, within the open transaction."""
    if version == 0:
        statements = SCHEMA.split(";\n")
    else:
        statements = [one for older, step in STEPS.items() if older >= version for one in step]
        statements.append(f"PRAGMA user_version = {VERSION}")
    for statement in statements:
        database.execute(statement)
