-- The auth store. What is secret is sealed before it gets here. Times are seconds since 1970.
CREATE TABLE tenantd.marks (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

-- The incarnation of each tenant that has one.
CREATE TABLE tenantd.incarnations (
    tenant text COLLATE "C" PRIMARY KEY,
    id bytea NOT NULL,
    -- The entry that has the name; none until one takes what an earlier version kept.
    entry_id text,
    payload bytea NOT NULL
);

CREATE TABLE tenantd.grants (
    tenant text COLLATE "C" NOT NULL,
    incarnation bytea NOT NULL,
    id bytea NOT NULL,
    client_id text NOT NULL,
    -- The number of the one-time token that was issued last; 0 is the code.
    number bigint NOT NULL,
    issued_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    ends_at bigint NOT NULL,
    family_key bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX grants_by_expiry ON tenantd.grants (expires_at);
CREATE INDEX grants_by_client ON tenantd.grants (tenant, client_id);

CREATE TABLE tenantd.revocations (
    tenant text COLLATE "C" NOT NULL,
    incarnation bytea NOT NULL,
    -- A grant's id, or the digest of a client's.
    subject bytea NOT NULL,
    issued_until bigint NOT NULL,
    forget_at bigint NOT NULL,
    seal bytea NOT NULL,
    PRIMARY KEY (tenant, subject)
);

CREATE TABLE tenantd.signing_keys (
    tenant text COLLATE "C" NOT NULL,
    incarnation bytea NOT NULL,
    kid text COLLATE "C" NOT NULL,
    signs_from bigint NOT NULL,
    pkcs8 bytea NOT NULL,
    -- Whether it was inserted as the first one: of several nodes that try, one succeeds.
    is_first boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, kid)
);
CREATE UNIQUE INDEX first_signing_keys ON tenantd.signing_keys (tenant, incarnation) WHERE is_first;

CREATE TABLE tenantd.clients (
    tenant text COLLATE "C" NOT NULL,
    incarnation bytea NOT NULL,
    id text COLLATE "C" NOT NULL,
    document bytea NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE tenantd.removed_clients (
    tenant text COLLATE "C" NOT NULL,
    incarnation bytea NOT NULL,
    -- The digest of the client's id.
    client bytea NOT NULL,
    removed_at bigint NOT NULL,
    seal bytea NOT NULL,
    PRIMARY KEY (tenant, client)
);

-- Whom operators keep out. A block belongs to no incarnation.
CREATE TABLE tenantd.blocks (
    id bytea PRIMARY KEY,
    details bytea NOT NULL
);

-- Client assertions that were used, until they expire.
CREATE TABLE tenantd.used_assertions (
    digest bytea PRIMARY KEY,
    expires_at bigint NOT NULL,
    -- Drawn for each attempt, so that whoever asks again knows its own.
    attempt bytea NOT NULL
);
CREATE INDEX used_assertions_by_expiry ON tenantd.used_assertions (expires_at);

-- Grows with every change of what nodes keep in memory.
CREATE TABLE tenantd.generation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    number bigint NOT NULL
);
INSERT INTO tenantd.generation (number) VALUES (0);

-- The node that serves with this database.
CREATE TABLE tenantd.lease (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    holder bytea NOT NULL,
    name text NOT NULL,
    -- Grows with every change of the holder.
    fence bigint NOT NULL,
    until timestamptz NOT NULL
);

-- Counts a change of what nodes keep in memory and tells them; refuses it to a node that no longer
-- holds the lease.
CREATE FUNCTION tenantd.announce_change(held_fence bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    counted bigint;
BEGIN
    PERFORM 1 FROM tenantd.lease WHERE fence = held_fence FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another node holds the lease' USING ERRCODE = 'TD001';
    END IF;
    UPDATE tenantd.generation SET number = number + 1 RETURNING number INTO counted;
    PERFORM pg_notify('tenantd', counted::text);
    RETURN counted;
END
$$;
