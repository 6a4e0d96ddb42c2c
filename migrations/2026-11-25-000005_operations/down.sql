ALTER TABLE jobs DROP COLUMN operation_id;
DROP TABLE operation_skipped;
DROP TABLE operations;
