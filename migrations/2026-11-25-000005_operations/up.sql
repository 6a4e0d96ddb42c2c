-- One wish for many hosts. Its jobs are in jobs; who was meant and got none is in operation_skipped.
CREATE TABLE operations (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    -- What was asked for, for people and for a retry.
    request jsonb NOT NULL,
    -- The operation whose failed jobs this one tries again.
    retry_of uuid,
    requested_by text,
    created_at timestamptz NOT NULL,
    canaries bigint NOT NULL DEFAULT 0,
    max_parallel bigint,
    stop_after_failures bigint,
    -- How many jobs were made, and how many members got none.
    jobs bigint NOT NULL,
    skipped bigint NOT NULL,
    cancel_requested_at timestamptz,
    halted_at timestamptz,
    halt_reason text,
    -- When the last of its jobs was over. The counts below are written then: jobs may go before their operation does.
    ended_at timestamptz,
    succeeded bigint NOT NULL DEFAULT 0,
    partial bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0
);
CREATE INDEX operations_newest ON operations (created_at DESC, id DESC);
CREATE INDEX operations_open ON operations (id) WHERE ended_at IS NULL;

CREATE TABLE operation_skipped (
    operation_id uuid NOT NULL REFERENCES operations ON DELETE CASCADE,
    -- Without a reference: an id that was asked for may be nobody's.
    host_id uuid NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (operation_id, host_id)
);

ALTER TABLE jobs ADD COLUMN operation_id uuid;
-- What follows the id is looked at in the index, as in jobs_of_host.
CREATE INDEX jobs_of_operation ON jobs (operation_id, created_at DESC, id DESC, outcome) WHERE operation_id IS NOT NULL;
