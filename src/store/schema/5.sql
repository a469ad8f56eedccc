-- Whom an operator keeps out. A block belongs to no life of a tenant: it stays until it is lifted.
CREATE TABLE blocks (
    -- 16 bytes of chance.
    id BLOB PRIMARY KEY,
    -- Who, where, why and until when; sealed.
    details BLOB NOT NULL
) STRICT, WITHOUT ROWID;
