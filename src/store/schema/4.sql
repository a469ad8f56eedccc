-- What each entry holds (its tenant's name, paths and hosts), since when, and which claim of its files was refused.
CREATE TABLE claims (
    stem TEXT PRIMARY KEY,
    -- All of it, sealed.
    about BLOB NOT NULL
) STRICT, WITHOUT ROWID;
