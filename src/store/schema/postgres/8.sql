-- When a gateway last wanted a certificate for the name. Rows that nobody wants are deleted after 30
-- days. Gateways of the version before do not say so, and are gone by then.
ALTER TABLE tenantd.certificates ADD COLUMN wanted_at timestamptz NOT NULL DEFAULT clock_timestamp();
