ALTER TABLE source_groups DROP COLUMN rpo_seconds, DROP COLUMN success_within_seconds, DROP COLUMN last_success_at, DROP COLUMN overdue_at;
ALTER TABLE jobs DROP COLUMN run_id;
DROP TABLE runs;
DROP TABLE schedules;
