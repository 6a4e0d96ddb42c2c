-- Who wanted to change what over REST, and what came of it. A row of a change that was made is written in the change's own
-- transaction. Rows are only added; the ids are ordered by time.
CREATE TABLE audit (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    request_id text NOT NULL,
    -- NULL: nobody whom we know, or the built-in admin, who has a name only.
    token_id uuid,
    token_name text,
    -- The peer's address: that of the proxy, if there is one.
    remote_address text,
    method text NOT NULL,
    -- The pattern of the URL, and the path behind /v1 with the id of what was made.
    route text NOT NULL,
    target text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('done', 'unchanged', 'refused', 'failed')),
    -- The status of the answer; NULL where the change is done, whatever its asker came to hear of it.
    status bigint,
    detail text,
    -- Requests that this row stands for: what is refused again and again makes no row each time.
    times bigint NOT NULL DEFAULT 1
);

-- Retention alone may delete, and says so within its transaction.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('fleet.audit_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
