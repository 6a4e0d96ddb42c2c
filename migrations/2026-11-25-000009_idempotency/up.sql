-- What was asked under an Idempotency-Key in the last day. A row comes in the transaction that does what is asked; the answer
-- follows. A repetition that finds no answer (a crash came before it) is carried out with the same ids and at the same time.
CREATE TABLE idempotency_keys (
    -- SHA-256 of whose key it is, the path and the key.
    name bytea PRIMARY KEY,
    -- SHA-256 of the query and the body.
    asked bytea NOT NULL,
    -- What ids and secrets are made of.
    claim uuid NOT NULL,
    claimed_at timestamptz NOT NULL,
    -- Status, headers and body, sealed.
    answer bytea
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (claimed_at);
