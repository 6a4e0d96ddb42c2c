-- The order in which rows of the audit log were committed. The ids are made when a request comes, and what it asks may be done
-- much later: who reads on from the last id that it knows would miss that.
ALTER TABLE audit ADD COLUMN seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY;
CREATE UNIQUE INDEX audit_seq ON audit (seq);

-- Numbers are drawn by one transaction at a time, until it is committed: so nobody sees a number before all lower ones are there
-- that will ever be. The lock is "fleeta" in ASCII.
CREATE FUNCTION audit_in_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(112615743648865);
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_in_turn BEFORE INSERT ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_in_turn();

-- Who did something; what was done to a thing, which stands behind its kind in the path or at the end of it; what was
-- refused or failed. There are no NULLs among the ids, but their order tells the planner these from the key, in which it
-- would look for what is rare for ever.
CREATE INDEX audit_by_token ON audit (token_name, id DESC NULLS LAST);
CREATE INDEX audit_by_thing ON audit (split_part(target, '/', 2), id DESC NULLS LAST);
CREATE INDEX audit_by_end ON audit (split_part(target, '/', -1), id DESC NULLS LAST)
    WHERE split_part(target, '/', 3) <> '';
CREATE INDEX audit_by_outcome ON audit (outcome, id DESC NULLS LAST) WHERE outcome <> 'done';

-- The operations that mean a host, the newest first. Their jobs are made at the same time as they.
CREATE INDEX jobs_of_host_in_operations ON jobs (host_id, created_at DESC, operation_id DESC) WHERE operation_id IS NOT NULL;
ALTER TABLE operation_skipped ADD COLUMN created_at timestamptz;
UPDATE operation_skipped SET created_at = operations.created_at FROM operations WHERE operations.id = operation_id;
ALTER TABLE operation_skipped ALTER COLUMN created_at SET NOT NULL;
CREATE INDEX operation_skipped_of_host ON operation_skipped (host_id, created_at DESC, operation_id DESC);
