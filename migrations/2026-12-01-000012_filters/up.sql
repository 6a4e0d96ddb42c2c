-- Lists of a repository's jobs, by any of the words that jobs are filtered by, as `jobs_by_words` has all jobs.
CREATE INDEX jobs_of_repository
    ON jobs (repository_id, kind, origin, outcome, created_at DESC NULLS LAST, id DESC NULLS LAST);
-- Few are partial, and a morning's question is for all of them.
CREATE INDEX jobs_partial ON jobs (created_at DESC, id DESC) WHERE partial;
CREATE INDEX hosts_by_name ON hosts (hostname, created_at, id);
CREATE INDEX hosts_decommissioned ON hosts (created_at, id) WHERE decommissioned_at IS NOT NULL;
CREATE INDEX source_groups_by_name ON source_groups (name);
