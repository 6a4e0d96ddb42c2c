DROP INDEX runs_of_maintenance;
ALTER TABLE repositories DROP COLUMN runner_host_id, DROP COLUMN forget_max_snapshots, DROP COLUMN forget_max_share;
DROP TABLE maintenance;
