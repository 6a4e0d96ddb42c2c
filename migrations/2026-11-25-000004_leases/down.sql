ALTER TABLE repositories DROP COLUMN max_backups;
DROP TABLE pauses;
