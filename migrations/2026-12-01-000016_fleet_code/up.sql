-- Where the secrets of a repository come from, by their columns: {"password": {"env": "NAME"}} or {"file": "PATH"}. One that
-- was set over REST is not in it.
ALTER TABLE repositories ADD COLUMN secret_sources jsonb NOT NULL DEFAULT '{}';
-- The name under which the document of the fleet knows a schedule.
ALTER TABLE schedules ADD COLUMN name text;
CREATE UNIQUE INDEX schedules_by_name ON schedules (host_id, name) WHERE deleted_at IS NULL;
