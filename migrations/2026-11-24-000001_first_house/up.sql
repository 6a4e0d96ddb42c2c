-- Secrets (password, credential, ...) are sealed by the coordinator before they come here; tokens are hashed.
-- Times ending in _at are the coordinator's clock, but for jobs.started_at and jobs.finished_at, which agents report.

-- One row a fact about the installation itself; today the proof that the key file fits this database.
CREATE TABLE settings (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE repositories (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    url text NOT NULL,
    username text,
    password bytea NOT NULL,
    credential bytea,
    admin_url text,
    admin_username text,
    admin_password bytea,
    admin_credential bytea,
    has_admin boolean NOT NULL DEFAULT false,
    append_only boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE hosts (
    id uuid PRIMARY KEY,
    hostname text NOT NULL,
    os text NOT NULL,
    arch text NOT NULL,
    labels jsonb NOT NULL DEFAULT '{}',
    repository_id uuid REFERENCES repositories,
    token_hash bytea UNIQUE,
    -- What the agent said in its last hello.
    agent_version text,
    restic_version text,
    protocol_version bigint,
    capabilities jsonb NOT NULL DEFAULT '[]',
    journal text,
    -- The journal before that. One that comes back shows that two agents share the token: the machine was cloned.
    previous_journal text,
    cloned_at timestamptz,
    boot_time timestamptz,
    online boolean NOT NULL DEFAULT false,
    last_seen_at timestamptz,
    hook_shell text,
    pre_hook text,
    post_hook text,
    bandwidth_up_kbps bigint,
    bandwidth_down_kbps bigint,
    schedule_version bigint NOT NULL DEFAULT 1,
    applied_schedule_version bigint,
    -- The repository in which this host's init has succeeded.
    initialized_repository_id uuid,
    snapshots_as_of timestamptz,
    created_at timestamptz NOT NULL,
    decommissioned_at timestamptz
) WITH (fillfactor = 50); -- Every sign of life is an update: with room in its page it touches no index.
CREATE INDEX hosts_in_service ON hosts (created_at, id) WHERE decommissioned_at IS NULL;
CREATE INDEX hosts_offline ON hosts (created_at, id) WHERE NOT online AND decommissioned_at IS NULL;
-- One hostname once per repository: snapshots are told apart by it.
CREATE UNIQUE INDEX hosts_hostname_in_repository ON hosts (repository_id, hostname) WHERE decommissioned_at IS NULL;

CREATE TABLE enrollment_tokens (
    token_hash bytea PRIMARY KEY,
    labels jsonb NOT NULL DEFAULT '{}',
    repository_id uuid REFERENCES repositories ON DELETE CASCADE,
    host_id uuid REFERENCES hosts ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);

CREATE TABLE source_groups (
    host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
    name text NOT NULL,
    includes jsonb NOT NULL,
    excludes jsonb NOT NULL DEFAULT '[]',
    retention jsonb,
    retry_max bigint NOT NULL DEFAULT 0,
    retry_backoff_seconds bigint NOT NULL DEFAULT 60,
    pre_hook text,
    post_hook text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (host_id, name)
);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    host_id uuid NOT NULL REFERENCES hosts,
    repository_id uuid NOT NULL REFERENCES repositories,
    kind text NOT NULL,
    status text NOT NULL,
    partial boolean NOT NULL DEFAULT false,
    origin text NOT NULL,
    source_group text,
    schedule_id uuid,
    scheduled_at timestamptz,
    attempt bigint NOT NULL DEFAULT 1,
    retry_of uuid,
    requested_by text,
    -- The command.run as it is sent.
    command jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    dispatched_at timestamptz,
    -- The journal of the agent that it was sent to: another one has no memory of it.
    journal text,
    accepted_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    cancel_requested_at timestamptz,
    -- When the coordinator learned of the beginning and of the end.
    began_at timestamptz,
    ended_at timestamptz,
    -- When the coordinator stopped waiting for a report. The agent may still be at work, so the job keeps its lease on
    -- the repository until released_at.
    lost_at timestamptz,
    released_at timestamptz,
    exit_code bigint,
    error text,
    -- restic's summary as it came: text, for jsonb would reorder it and refuses NUL.
    stats text,
    progress jsonb,
    -- 'open', or the status it ended in. Indexes know it instead of the status: a job's updates touch none before its end.
    outcome text NOT NULL
        GENERATED ALWAYS AS (CASE WHEN status IN ('queued', 'running') THEN 'open' ELSE status END) STORED,
    CONSTRAINT jobs_status CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled'))
) WITH (
    -- A job is written four times on its way. With room in its page for the next version no index is written but at the
    -- beginning and at the end, which halves what goes into the WAL.
    fillfactor = 50,
    -- A fifth of ten million rows, which is the default, would be a long time to wait.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
CREATE INDEX jobs_newest ON jobs (created_at DESC, id DESC);
-- What follows the id is looked at in the index, so that a host's jobs are found without reading all of them.
CREATE INDEX jobs_of_host ON jobs (host_id, created_at DESC, id DESC, kind, origin, outcome);
-- The newest jobs of each combination of words, for db/job_lists.rs. There are no NULLs, but their order tells the planner
-- this index from jobs_newest, in which it would look for what is rare for ever.
CREATE INDEX jobs_by_words ON jobs (kind, origin, outcome, created_at DESC NULLS LAST, id DESC NULLS LAST);
CREATE INDEX jobs_open ON jobs (created_at DESC, id DESC) WHERE outcome = 'open';
CREATE INDEX jobs_lost ON jobs (id) WHERE lost_at IS NOT NULL AND released_at IS NULL;

-- Many lines in one compressed row; seq in first_seq..=last_seq without a gap.
CREATE TABLE log_chunks (
    job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    -- Made of the chunks that came in, once the job was over.
    compacted boolean NOT NULL DEFAULT false,
    data bytea NOT NULL,
    PRIMARY KEY (job_id, first_seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
-- What is still to be compacted. The order of NULLs, of which there are none, tells the planner this index from the key.
CREATE INDEX log_chunks_loose ON log_chunks (job_id NULLS FIRST, first_seq) WHERE NOT compacted;
-- The coordinator has compressed it already.
ALTER TABLE log_chunks ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE snapshots (
    host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
    id text NOT NULL,
    short_id text NOT NULL,
    time timestamptz,
    hostname text NOT NULL,
    paths jsonb NOT NULL,
    tags jsonb NOT NULL,
    size_bytes bigint NOT NULL,
    file_count bigint NOT NULL,
    PRIMARY KEY (host_id, id)
);

-- A row a field, for each field has its own age: the newest value wins, whichever host reported it.
CREATE TABLE repository_stats (
    repository_id uuid NOT NULL REFERENCES repositories ON DELETE CASCADE,
    host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
    field text NOT NULL,
    value jsonb NOT NULL,
    as_of timestamptz NOT NULL,
    PRIMARY KEY (repository_id, host_id, field)
);
