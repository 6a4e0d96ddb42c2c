-- When a repository is forgotten in, pruned and checked.
CREATE TABLE maintenance (
    repository_id uuid NOT NULL REFERENCES repositories ON DELETE CASCADE,
    kind text NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL,
    enabled boolean NOT NULL,
    -- What a check reads of the data. 1/n stands for another part each time.
    subset text,
    interval_seconds bigint NOT NULL,
    -- The first instant that is not in the ledger of runs; none if there will be none.
    next_due_at timestamptz,
    last_success_at timestamptz,
    -- What the last check that succeeded has read.
    last_subset text,
    -- From when on it is overdue.
    overdue_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (repository_id, kind),
    CONSTRAINT maintenance_kind CHECK (kind IN ('forget', 'prune', 'check'))
);
CREATE INDEX maintenance_due ON maintenance (next_due_at) WHERE next_due_at IS NOT NULL;
CREATE INDEX maintenance_overdue ON maintenance (overdue_at, repository_id, kind) WHERE overdue_at IS NOT NULL;

ALTER TABLE repositories
    -- The one host that may delete and check; any may if there is none.
    ADD COLUMN runner_host_id uuid REFERENCES hosts,
    -- How much one forget may delete.
    ADD COLUMN forget_max_snapshots bigint,
    ADD COLUMN forget_max_share double precision;

-- Maintenance that is not over.
CREATE INDEX runs_of_maintenance ON runs (repository_id, due_at)
    WHERE schedule_id IS NULL AND outcome IN ('expected', 'running');
