-- When an agent backs up which of its source groups. The agent's own cron keeps it.
CREATE TABLE schedules (
    id uuid PRIMARY KEY,
    host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
    -- Five fields, as in crontab(5).
    cron text NOT NULL,
    timezone text NOT NULL,
    enabled boolean NOT NULL,
    -- Names of the host's groups, in the order of the job ids that its agent makes.
    source_groups jsonb NOT NULL,
    -- How late a firing that was missed is still caught up.
    catch_up_seconds bigint NOT NULL,
    bandwidth_up_kbps bigint,
    bandwidth_down_kbps bigint,
    -- The longest time between two firings.
    interval_seconds bigint NOT NULL,
    -- The host's schedule_version that this was changed with.
    version bigint NOT NULL,
    -- The first firing that is not in the ledger of runs; none if there will be none.
    next_due_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- An agent that has not heard of it yet may still fire it.
    deleted_at timestamptz
);
CREATE INDEX schedules_of_host ON schedules (host_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX schedules_due ON schedules (next_due_at) WHERE next_due_at IS NOT NULL;

-- The ledger of expected runs: what was due when, and what became of it. A row follows the job of its latest attempt.
CREATE TABLE runs (
    -- Made from what is due when, so that nothing has two rows (db/runs).
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    -- A backup has a host, a source group and a schedule. Maintenance has a repository, and a host if it is that host's part.
    host_id uuid REFERENCES hosts ON DELETE CASCADE,
    source_group text,
    schedule_id uuid,
    repository_id uuid,
    due_at timestamptz NOT NULL,
    outcome text NOT NULL,
    -- Why it was skipped or missed, or what went wrong.
    reason text,
    -- The latest attempt. Of a run that was skipped or missed, the id that its agent would give it.
    job_id uuid,
    attempt bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL,
    -- When the next attempt is made, while it is retrying.
    retry_at timestamptz,
    CONSTRAINT runs_outcome CHECK (outcome IN ('expected', 'running', 'retrying', 'succeeded', 'partial', 'failed',
        'cancelled', 'missed', 'skipped'))
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
CREATE INDEX runs_of_host ON runs (host_id, due_at DESC, id DESC) WHERE host_id IS NOT NULL;
CREATE INDEX runs_of_repository ON runs (repository_id, due_at DESC, id DESC) WHERE schedule_id IS NULL;
-- Counted in it, for the metrics.
CREATE INDEX runs_by_time ON runs (due_at, outcome);
-- What the ticker looks at.
CREATE INDEX runs_expected ON runs (due_at, id) WHERE outcome = 'expected';
CREATE INDEX runs_retrying ON runs (retry_at, id) WHERE outcome = 'retrying';
-- An agent may have run what was not wanted of it any more: then the job is made after all.
CREATE INDEX runs_adoptable ON runs (job_id) WHERE job_id IS NOT NULL AND outcome IN ('missed', 'skipped');

ALTER TABLE jobs
    -- The run of the ledger that it is an attempt at.
    ADD COLUMN run_id uuid;

ALTER TABLE source_groups
    -- Within how long of the last one a backup must succeed, if somebody says so.
    ADD COLUMN rpo_seconds bigint,
    -- That, or twice the interval of its schedules; nothing if it has neither.
    ADD COLUMN success_within_seconds bigint,
    -- When the newest backup that succeeded was finished.
    ADD COLUMN last_success_at timestamptz,
    -- From when on it is overdue.
    ADD COLUMN overdue_at timestamptz;
CREATE INDEX source_groups_overdue ON source_groups (overdue_at, host_id, name) WHERE overdue_at IS NOT NULL;
