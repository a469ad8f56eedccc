-- Whose a tenant's name is, and since which of its lives. What is kept for logins belongs to a life and ends with it.
CREATE TABLE lives (
    tenant TEXT PRIMARY KEY,
    -- 16 bytes of chance.
    id BLOB NOT NULL,
    -- The entry that has the name; none of what an earlier version kept, until an entry takes the name.
    stem TEXT,
    -- What held when the life was taken over from an earlier version; sealed, and with it the columns above.
    about BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- From here on what is sealed of a row covers its other columns, too; a row with nothing to hide has a seal.
ALTER TABLE grants ADD COLUMN life BLOB NOT NULL DEFAULT x'';
ALTER TABLE revoked ADD COLUMN life BLOB NOT NULL DEFAULT x'';
ALTER TABLE revoked ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE signing_keys ADD COLUMN life BLOB NOT NULL DEFAULT x'';
ALTER TABLE clients ADD COLUMN life BLOB NOT NULL DEFAULT x'';
ALTER TABLE denied_clients ADD COLUMN life BLOB NOT NULL DEFAULT x'';
ALTER TABLE denied_clients ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE entries ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
