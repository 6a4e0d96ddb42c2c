-- What is paused: nothing new is started there. The fleet is paused by the row that names no host and no repository.
CREATE TABLE pauses (
    -- The host's or the repository's; of the fleet the nil UUID.
    id uuid PRIMARY KEY,
    host_id uuid REFERENCES hosts ON DELETE CASCADE,
    repository_id uuid REFERENCES repositories ON DELETE CASCADE,
    reason text NOT NULL,
    paused_by text NOT NULL,
    since timestamptz NOT NULL,
    CONSTRAINT pauses_one_thing
        CHECK (id = coalesce(host_id, repository_id, '00000000-0000-0000-0000-000000000000')
            AND num_nonnulls(host_id, repository_id) <= 1)
);
CREATE INDEX pauses_by_age ON pauses (since, id);

ALTER TABLE repositories
    -- How many backups may be out at once; without it what the coordinator is started with counts.
    ADD COLUMN max_backups bigint CONSTRAINT repositories_max_backups CHECK (max_backups > 0);
