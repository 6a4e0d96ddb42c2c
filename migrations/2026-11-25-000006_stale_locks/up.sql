-- Locks in repositories that jobs of the fleet have met and that nobody seems to hold any more. A person removes them.
CREATE TABLE stale_locks (
    repository_id uuid NOT NULL REFERENCES repositories ON DELETE CASCADE,
    -- The first digits of restic's id of it, or who holds it.
    lock_id text NOT NULL,
    -- The host on which an unlock removes it.
    host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
    -- The job that met it last.
    job_id uuid NOT NULL,
    -- What its agent says of it: who holds it, since when, and how it stands.
    lock jsonb NOT NULL,
    met_at timestamptz NOT NULL,
    PRIMARY KEY (repository_id, lock_id)
);
