-- Which entries of its tenants folder each node has, and which revision of each is in force there.
-- Times are seconds since 1970.
CREATE TABLE tenantd.node_entries (
    node bytea NOT NULL,
    entry_id text COLLATE "C" NOT NULL,
    -- The tenant's name, for people.
    name text NOT NULL,
    state text NOT NULL,
    since bigint NOT NULL,
    -- The digests of the files and of the revision in force.
    on_disk bytea,
    in_force bytea,
    -- When the revision in force changed, by the server's clock.
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (entry_id, node)
);
CREATE INDEX node_entries_by_node ON tenantd.node_entries (node);

-- The nodes that have read their folder since they started for the first time.
CREATE TABLE tenantd.node_reports (
    node bytea PRIMARY KEY,
    -- Grows with every report.
    version bigint NOT NULL,
    entries bigint NOT NULL
);

-- What operators ordered about entries: the last order of each kind. A rollback has the documents
-- of its revision, sealed, if they are not too large.
CREATE TABLE tenantd.tenant_orders (
    entry_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    -- Counts with all changes of the database: the higher number is the later order.
    number bigint NOT NULL,
    -- What was ordered, sealed.
    details bytea NOT NULL,
    documents bytea,
    PRIMARY KEY (entry_id, kind)
);
