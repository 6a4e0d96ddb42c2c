DROP INDEX log_chunks_loose;
ALTER TABLE log_chunks DROP COLUMN compacted;
