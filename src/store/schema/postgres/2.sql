-- Many nodes serve with one database: the lease of the only one goes, and with it the version
-- before, which knows no other.
DROP FUNCTION tenantd.announce_change(bigint);
DROP TABLE tenantd.lease;

-- The gateways that serve with this database.
CREATE TABLE tenantd.nodes (
    id bytea PRIMARY KEY,
    name text NOT NULL,
    -- Drawn at each start.
    boot bytea NOT NULL,
    -- The state folder itself: a copy of it has the same id and another place.
    place bytea NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    left_at timestamptz
);

CREATE FUNCTION tenantd.is_live(node tenantd.nodes) RETURNS boolean LANGUAGE sql AS $$
    SELECT node.left_at IS NULL AND node.seen_at > clock_timestamp() - interval '15 seconds'
$$;

-- What changed of what nodes keep in memory, by the number that the generation had then. The latest
-- is always kept, others for an hour.
CREATE TABLE tenantd.changes (
    number bigint PRIMARY KEY,
    -- Tells a change from another with its number, in a database that forgot the first.
    mark uuid NOT NULL DEFAULT gen_random_uuid(),
    kind text NOT NULL,
    tenant text NOT NULL,
    key bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX changes_by_age ON tenantd.changes (recorded_at);
INSERT INTO tenantd.changes (number, kind, tenant, key) SELECT number, 'beginning', '', '' FROM tenantd.generation;

-- Records changes and tells all nodes. Whoever records waits for those who did before it, so numbers
-- become visible in their order and without gaps.
CREATE FUNCTION tenantd.record_changes(change_kind text, tenants text[], keys bytea[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    added bigint := cardinality(tenants);
    latest bigint;
BEGIN
    UPDATE tenantd.generation SET number = number + added RETURNING number INTO latest;
    INSERT INTO tenantd.changes (number, kind, tenant, key)
    SELECT latest - added + given.place, change_kind, given.tenant, given.key
    FROM unnest(tenants, keys) WITH ORDINALITY AS given (tenant, key, place);
    PERFORM pg_notify('tenantd', latest::text);
    RETURN latest;
END
$$;

CREATE FUNCTION tenantd.record_change(change_kind text, tenant text, key bytea) RETURNS bigint
LANGUAGE sql AS $$ SELECT tenantd.record_changes(change_kind, ARRAY[tenant], ARRAY[key]) $$;
