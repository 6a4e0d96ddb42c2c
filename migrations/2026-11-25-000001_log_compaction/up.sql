ALTER TABLE log_chunks
    -- Made of the chunks that came in, once the job was over.
    ADD COLUMN compacted boolean NOT NULL DEFAULT false;
-- What is still to be compacted. The order of NULLs, of which there are none, tells the planner this index from the key.
CREATE INDEX log_chunks_loose ON log_chunks (job_id NULLS FIRST, first_seq) WHERE NOT compacted;
