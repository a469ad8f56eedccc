-- Certificates that gateways obtain together. Keys, chains and answers are sealed before they get
-- here.
CREATE TABLE tenantd.certificates (
    name text COLLATE "C" PRIMARY KEY,
    -- Grows with each change that other nodes must read.
    version bigint NOT NULL DEFAULT 0,
    -- When the certificate begins to be valid, in seconds since 1970. Key and chain are in the
    -- bundle.
    not_before bigint,
    bundle bytea,
    -- What is remembered for the schedule.
    renewal bytea,
    -- The order that is under way, with its key: who takes the lease next goes on with it.
    pending_order bytea,
    -- The lease of the node that orders. Each attempt to take it draws an id; the fencing number
    -- grows with each holder, and each of its writes compares it.
    lease bytea,
    holder text,
    is_ordering boolean NOT NULL DEFAULT false,
    fence bigint NOT NULL DEFAULT 0,
    until timestamptz NOT NULL DEFAULT 'epoch'
);

-- The account with each CA, by the URL of its directory. One node at a time opens one.
CREATE TABLE tenantd.acme_accounts (
    directory text COLLATE "C" PRIMARY KEY,
    account bytea,
    lease bytea,
    fence bigint NOT NULL DEFAULT 0,
    until timestamptz NOT NULL DEFAULT 'epoch'
);

-- What a CA must find while it validates a name, at whichever node it asks.
CREATE TABLE tenantd.acme_challenges (
    kind text COLLATE "C" NOT NULL,
    -- The token of HTTP-01, the server name of TLS-ALPN-01.
    key text COLLATE "C" NOT NULL,
    answer bytea NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (kind, key)
);
