ALTER TABLE schedules DROP COLUMN name;
ALTER TABLE repositories DROP COLUMN secret_sources;
