-- The usage ledger: who used what, for each hour (period 0) and each day (period 1).
CREATE TABLE usage (
    period INTEGER NOT NULL,
    -- When the hour or day began, in seconds since 1970.
    starts INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    person TEXT NOT NULL,
    client TEXT NOT NULL,
    tool TEXT NOT NULL,
    -- The person's name as it was last.
    name TEXT NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (period, starts, tenant, person, client, tool)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_tenant ON usage (tenant, period, starts);

-- What was used of quotas in the day and month that were counted last.
CREATE TABLE quotas (
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    day INTEGER NOT NULL,
    month INTEGER NOT NULL,
    calls_day INTEGER NOT NULL,
    calls_month INTEGER NOT NULL,
    bytes_day INTEGER NOT NULL,
    bytes_month INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope)
) STRICT, WITHOUT ROWID;
