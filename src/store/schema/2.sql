-- What people allowed clients to do. Times are seconds since 1970.
CREATE TABLE grants (
    tenant TEXT NOT NULL,
    -- 16 bytes of chance.
    id BLOB NOT NULL,
    client_id TEXT NOT NULL,
    -- The number of the one-time token that was issued last; 0 is the code.
    number INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    -- Unless another token is issued before.
    expires_at INTEGER NOT NULL,
    -- In any case.
    ends_at INTEGER NOT NULL,
    -- What the one-time tokens derive from, sealed.
    family BLOB NOT NULL,
    -- Who, what for, the upstream refresh token; sealed.
    details BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX grants_by_expiry ON grants (expires_at);
CREATE INDEX grants_by_client ON grants (tenant, client_id);

-- Access tokens that are refused although they have not expired.
CREATE TABLE revoked (
    tenant TEXT NOT NULL,
    -- A grant's id, or the digest of a client's.
    subject BLOB NOT NULL,
    -- Tokens issued up to this moment are meant.
    issued_until INTEGER NOT NULL,
    -- By then they have all expired.
    forget_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, subject)
) STRICT, WITHOUT ROWID;

-- With what tenants sign their tokens.
CREATE TABLE signing_keys (
    tenant TEXT NOT NULL,
    -- RFC 7638 thumbprint.
    kid TEXT NOT NULL,
    signs_from INTEGER NOT NULL,
    -- PKCS #8, sealed.
    pkcs8 BLOB NOT NULL,
    PRIMARY KEY (tenant, kid)
) STRICT, WITHOUT ROWID;

-- Clients that an operator entered.
CREATE TABLE clients (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    -- What is known of it, sealed.
    document BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- Clients that registered themselves and are refused from now on.
CREATE TABLE denied_clients (
    tenant TEXT NOT NULL,
    -- SHA-256 of the client's id.
    client BLOB NOT NULL,
    denied_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, client)
) STRICT, WITHOUT ROWID;
