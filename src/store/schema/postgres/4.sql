-- What gateways count together of the use of tenants. Times are seconds since 1970.

-- The usage ledger: who used what, for each hour (period 0) and each day (period 1).
CREATE TABLE tenantd.usage (
    tenant text COLLATE "C" NOT NULL,
    period smallint NOT NULL,
    -- When the hour or day began.
    starts bigint NOT NULL,
    -- The digest of person, client and tool, which may be too long for an index.
    row_key bytea NOT NULL,
    person text NOT NULL,
    client text NOT NULL,
    tool text NOT NULL,
    -- The person's name as it was last.
    name text NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    ms bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (tenant, period, starts, row_key)
);
CREATE INDEX usage_by_period ON tenantd.usage (period, starts);

-- How many rows of a tenant name a person or a client.
CREATE TABLE tenantd.usage_sizes (
    tenant text COLLATE "C" PRIMARY KEY,
    detail_rows bigint NOT NULL
);

-- What was used of quotas in a day (period 0, since 1970) or a month (period 1, since the year 0).
CREATE TABLE tenantd.quotas (
    tenant text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    period smallint NOT NULL,
    number bigint NOT NULL,
    calls bigint NOT NULL,
    bytes bigint NOT NULL,
    -- The transaction that changed it last: who has seen all before a transaction reads from it on.
    changed bigint NOT NULL,
    PRIMARY KEY (tenant, scope, period, number)
);
CREATE INDEX quotas_by_change ON tenantd.quotas (changed);

-- The last batch of each process, so that one that is sent again counts once.
CREATE TABLE tenantd.usage_writers (
    writer bytea PRIMARY KEY,
    batch bigint NOT NULL,
    written_at timestamptz NOT NULL
);

-- The news that one gateway has told for all.
CREATE TABLE tenantd.told (
    news text COLLATE "C" PRIMARY KEY,
    -- The process that told it.
    teller bytea NOT NULL,
    forget_at bigint NOT NULL
);

-- Adds a batch of usage, unless it was added before. Rows are locked in the order of their keys, so
-- that gateways wait for each other and never in a circle. Compiling the statements (jit) would take
-- seconds.
CREATE FUNCTION tenantd.add_usage(
    given_writer bytea, given_batch bigint, most_detail_rows bigint,
    row_tenants text[], row_starts bigint[], row_keys bytea[], other_keys bytea[], persons text[],
    clients text[], tools text[], names text[],
    row_calls bigint[], row_errors bigint[], row_ms bigint[], row_bytes bigint[],
    quota_tenants text[], scopes text[], periods bigint[], numbers bigint[], quota_calls bigint[],
    quota_bytes bigint[]
) RETURNS boolean LANGUAGE plpgsql SET jit = off AS $$
BEGIN
    INSERT INTO tenantd.usage_writers AS known (writer, batch, written_at)
    VALUES (given_writer, given_batch, now())
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at
    WHERE known.batch < excluded.batch;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    WITH given AS (
        SELECT * FROM unnest(row_tenants, row_starts, row_keys, other_keys, persons, clients, tools, names,
            row_calls, row_errors, row_ms, row_bytes)
            AS row (tenant, hour, detail_key, other_key, person, client, tool, name, calls, errors, ms, bytes)
    ),
    by_period AS (
        SELECT 0::smallint AS period, hour AS starts, given.* FROM given
        UNION ALL SELECT 1::smallint, hour / 86400 * 86400, given.* FROM given
    ),
    placed AS (
        SELECT by_period.*, coalesce(sizes.detail_rows, 0) < most_detail_rows OR EXISTS (
            SELECT FROM tenantd.usage AS kept WHERE kept.tenant = by_period.tenant
            AND kept.period = by_period.period AND kept.starts = by_period.starts
            AND kept.row_key = by_period.detail_key
        ) AS fits
        FROM by_period LEFT JOIN tenantd.usage_sizes AS sizes ON sizes.tenant = by_period.tenant
    ),
    summed AS (
        SELECT tenant, period, starts, CASE WHEN fits THEN detail_key ELSE other_key END AS row_key,
            CASE WHEN fits THEN person ELSE '(others)' END AS person,
            CASE WHEN fits THEN client ELSE '(others)' END AS client,
            tool, max(CASE WHEN fits THEN name ELSE '(others)' END) AS name,
            sum(calls)::bigint AS calls, sum(errors)::bigint AS errors, sum(ms)::bigint AS ms,
            sum(bytes)::bigint AS bytes
        FROM placed GROUP BY 1, 2, 3, 4, 5, 6, 7
    ),
    written AS (
        INSERT INTO tenantd.usage AS kept
            (tenant, period, starts, row_key, person, client, tool, name, calls, errors, ms, bytes)
        SELECT tenant, period, starts, row_key, person, client, tool, name, calls, errors, ms, bytes
        FROM summed ORDER BY tenant, period, starts, row_key
        ON CONFLICT (tenant, period, starts, row_key) DO UPDATE SET name = excluded.name,
            calls = kept.calls + excluded.calls, errors = kept.errors + excluded.errors,
            ms = kept.ms + excluded.ms, bytes = kept.bytes + excluded.bytes
        RETURNING tenant, kept.xmax = 0 AND person <> '(others)' AS is_new_detail
    )
    INSERT INTO tenantd.usage_sizes AS kept (tenant, detail_rows)
    SELECT tenant, count(*) FROM written WHERE is_new_detail GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant) DO UPDATE SET detail_rows = kept.detail_rows + excluded.detail_rows;
    INSERT INTO tenantd.quotas AS kept (tenant, scope, period, number, calls, bytes, changed)
    SELECT tenant, scope, period, number, calls, bytes, pg_current_xact_id()::text::bigint
    FROM unnest(quota_tenants, scopes, periods, numbers, quota_calls, quota_bytes)
        AS quota (tenant, scope, period, number, calls, bytes)
    ORDER BY tenant COLLATE "C", scope COLLATE "C", period, number
    ON CONFLICT (tenant, scope, period, number) DO UPDATE SET calls = kept.calls + excluded.calls,
        bytes = kept.bytes + excluded.bytes, changed = excluded.changed;
    RETURN true;
END
$$;

-- Deletes what is older than it is kept, and of a ledger with too many rows the oldest hours, then
-- the oldest days. One gateway at a time.
CREATE FUNCTION tenantd.prune_usage(
    hours_from bigint, days_from bigint, quota_day bigint, quota_month bigint, told_until bigint,
    most_rows bigint
) RETURNS void LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    surplus bigint;
    boundary record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1953395828) THEN
        RETURN;
    END IF;
    DELETE FROM tenantd.usage
    WHERE (period = 0 AND starts < hours_from) OR (period = 1 AND starts < days_from);
    SELECT count(*) - most_rows FROM tenantd.usage INTO surplus;
    IF surplus > 0 THEN
        SELECT period, starts FROM tenantd.usage ORDER BY period, starts OFFSET surplus LIMIT 1 INTO boundary;
        DELETE FROM tenantd.usage WHERE (period, starts) < (boundary.period, boundary.starts);
    END IF;
    INSERT INTO tenantd.usage_sizes AS kept (tenant, detail_rows)
    SELECT tenant, count(*) FILTER (WHERE person <> '(others)') FROM tenantd.usage GROUP BY tenant
    ORDER BY tenant
    ON CONFLICT (tenant) DO UPDATE SET detail_rows = excluded.detail_rows;
    DELETE FROM tenantd.usage_sizes WHERE tenant NOT IN (SELECT tenant FROM tenantd.usage);
    DELETE FROM tenantd.quotas
    WHERE (period = 0 AND number < quota_day) OR (period = 1 AND number < quota_month);
    DELETE FROM tenantd.usage_writers WHERE written_at < now() - interval '400 days';
    DELETE FROM tenantd.told WHERE forget_at < told_until;
END
$$;
