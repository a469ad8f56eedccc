-- The incarnations that ended. Nodes derive the next one from the last, so that all come to the same.
CREATE TABLE tenantd.ended_incarnations (
    tenant text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, id)
);

-- Whether a live node besides this one has the entry. One that has just started may not have said yet
-- which it has.
CREATE FUNCTION tenantd.is_entry_elsewhere(held_entry text, this_node bytea) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (
        SELECT FROM tenantd.nodes AS node
        WHERE node.id <> this_node AND tenantd.is_live(node) AND (
            EXISTS (SELECT FROM tenantd.node_entries AS had WHERE had.node = node.id AND had.entry_id = held_entry)
            OR NOT EXISTS (SELECT FROM tenantd.node_reports AS report WHERE report.node = node.id)
                AND node.started_at > clock_timestamp() - interval '1 minute'
        )
    )
$$;

-- Changes the incarnations of tenants, and deletes what belonged to those that ended. An empty id ends
-- one. Returns the tenants whose change is refused: what ended does not come back, two nodes do not
-- begin two incarnations of one entry, and none ends while another live node serves its entry.
CREATE FUNCTION tenantd.change_incarnations(
    this_node bytea, tenants text[], ids bytea[], entry_ids text[], payloads bytea[]
) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    accepted text[];
BEGIN
    -- One at a time.
    PERFORM FROM tenantd.generation FOR UPDATE;
    SELECT coalesce(array_agg(given.tenant), '{}') INTO accepted
    FROM unnest(tenants, ids, entry_ids) AS given (tenant, id, entry_id)
    LEFT JOIN tenantd.incarnations AS held ON held.tenant = given.tenant
    WHERE CASE
        WHEN held.tenant IS NULL OR held.id = given.id THEN true
        WHEN octet_length(given.id) > 0 AND held.entry_id IS NOT DISTINCT FROM given.entry_id THEN false
        ELSE held.entry_id IS NULL OR NOT tenantd.is_entry_elsewhere(held.entry_id, this_node)
    END AND NOT EXISTS (
        SELECT FROM tenantd.ended_incarnations AS ended WHERE ended.tenant = given.tenant AND ended.id = given.id
    );
    IF cardinality(accepted) > 0 THEN
        PERFORM tenantd.record_changes(
            'incarnation', accepted, array_fill(''::bytea, ARRAY[cardinality(accepted)]));
        INSERT INTO tenantd.ended_incarnations (tenant, id)
        SELECT held.tenant, held.id FROM tenantd.incarnations AS held
        JOIN unnest(tenants, ids) AS given (tenant, id) ON given.tenant = held.tenant AND given.id <> held.id
        WHERE held.tenant = ANY (accepted) ON CONFLICT DO NOTHING;
        WITH change AS (
            SELECT * FROM unnest(tenants, ids, entry_ids, payloads) AS given (tenant, id, entry_id, payload)
            WHERE given.tenant = ANY (accepted)
        ), grants AS (
            DELETE FROM tenantd.grants AS owned USING change
            WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
        ), revocations AS (
            DELETE FROM tenantd.revocations AS owned USING change
            WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
        ), signing_keys AS (
            DELETE FROM tenantd.signing_keys AS owned USING change
            WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
        ), clients AS (
            DELETE FROM tenantd.clients AS owned USING change
            WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
        ), removed_clients AS (
            DELETE FROM tenantd.removed_clients AS owned USING change
            WHERE owned.tenant = change.tenant AND owned.incarnation <> change.id
        ), ended AS (
            DELETE FROM tenantd.incarnations AS held USING change
            WHERE held.tenant = change.tenant AND octet_length(change.id) = 0
        )
        INSERT INTO tenantd.incarnations (tenant, id, entry_id, payload)
        SELECT tenant, id, entry_id, payload FROM change WHERE octet_length(id) > 0
        ON CONFLICT (tenant) DO UPDATE
        SET id = excluded.id, entry_id = excluded.entry_id, payload = excluded.payload;
    END IF;
    RETURN QUERY SELECT given.tenant FROM unnest(tenants) AS given (tenant) WHERE given.tenant <> ALL (accepted);
END
$$;
