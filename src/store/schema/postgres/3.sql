-- What is known of a grant's last token beside what is sealed.
ALTER TABLE tenantd.grants
    -- The number of the token that the rest is about. A version before this one writes none of it, so
    -- it counts only while this is the last one.
    ADD COLUMN rotated_number bigint,
    -- When it was issued, by this server's clock, which all nodes share.
    ADD COLUMN rotated_at timestamptz,
    -- Whether it may have reached nobody.
    ADD COLUMN unconfirmed boolean NOT NULL DEFAULT false;
