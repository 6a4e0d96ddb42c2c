-- Who may use the REST API, beside the built-in admin. The tokens themselves are known to their holders only.
CREATE TABLE api_tokens (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    token_hash bytea NOT NULL UNIQUE,
    scope text NOT NULL CHECK (scope IN ('read', 'operate', 'admin')),
    -- The holder sees and touches only hosts that carry these; NULL: all hosts. Who may do everything can't be limited.
    host_labels jsonb CHECK (host_labels IS NULL OR scope <> 'admin'),
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    -- The row stays: the audit log names it.
    revoked_at timestamptz
);
-- Two tokens that are good at the same time are told apart by their names.
CREATE UNIQUE INDEX api_tokens_name ON api_tokens (name) WHERE revoked_at IS NULL;
CREATE INDEX api_tokens_living ON api_tokens (created_at, id) WHERE revoked_at IS NULL;
