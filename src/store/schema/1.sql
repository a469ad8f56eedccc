-- Single values.
CREATE TABLE marks (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What holds for an entry of the tenants folder, by stem.
CREATE TABLE entries (
    stem TEXT PRIMARY KEY,
    -- The number of the revision that is the last good one; none after the entry was gone.
    in_force INTEGER,
    -- Stopped by an operator.
    paused INTEGER NOT NULL DEFAULT 0,
    -- An older revision was put in force; that holds while the files have this digest.
    held_against TEXT
) STRICT, WITHOUT ROWID;

-- The last accepted revisions of each entry, numbered from 1.
CREATE TABLE revisions (
    stem TEXT NOT NULL REFERENCES entries (stem) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    accepted_at TEXT NOT NULL,
    -- What was read of its files, sealed.
    documents BLOB NOT NULL,
    PRIMARY KEY (stem, number)
) STRICT;
