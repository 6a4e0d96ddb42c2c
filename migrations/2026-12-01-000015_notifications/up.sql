-- Who is told, and of what.
CREATE TABLE channels (
    id uuid PRIMARY KEY,
    name text NOT NULL CONSTRAINT channels_name UNIQUE,
    kind text NOT NULL CONSTRAINT channels_kind CHECK (kind IN ('webhook', 'email')),
    -- Of a webhook: where to, and the sealed secret that signs.
    url text,
    secret bytea,
    -- Of e-mail: an array of addresses.
    recipients jsonb,
    -- The types of notices that are wanted, an array; NULL: all.
    events jsonb,
    -- Only of hosts that carry these, and of repositories that such a host uses; NULL: of all.
    host_labels jsonb,
    -- Only of this repository and the hosts that use it. One that is gone has no news.
    repository_id uuid,
    enabled boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT channels_target CHECK (CASE kind
        WHEN 'webhook' THEN url IS NOT NULL AND secret IS NOT NULL AND recipients IS NULL
        ELSE url IS NULL AND secret IS NULL AND recipients IS NOT NULL END)
);

-- What is to be told: written in the transaction that makes it true, and only if somebody wants to know. The id is made from
-- what has happened, so that it is told under one id however often its transaction is repeated.
CREATE TABLE notices (
    id uuid PRIMARY KEY,
    event text NOT NULL,
    at timestamptz NOT NULL,
    -- What receivers get, but for type and time.
    data jsonb NOT NULL
);
CREATE INDEX notices_by_age ON notices (at);

-- One notice on its way to one channel.
CREATE TABLE deliveries (
    id uuid PRIMARY KEY,
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    notice_id uuid NOT NULL REFERENCES notices ON DELETE CASCADE,
    status text NOT NULL CONSTRAINT deliveries_status CHECK (status IN ('pending', 'delivered', 'failed')),
    created_at timestamptz NOT NULL,
    -- From when on it is tried, until it is given up; sending again begins anew.
    tried_from timestamptz NOT NULL,
    -- Only of one that is pending.
    next_attempt_at timestamptz CONSTRAINT deliveries_next CHECK ((next_attempt_at IS NOT NULL) = (status = 'pending')),
    tries bigint NOT NULL DEFAULT 0,
    -- The last of them, an array of {at, took_ms, status_code, error}.
    attempts jsonb NOT NULL DEFAULT '[]',
    settled_at timestamptz,
    CONSTRAINT deliveries_once UNIQUE (channel_id, notice_id)
);
CREATE INDEX deliveries_due ON deliveries (channel_id, next_attempt_at, id) WHERE status = 'pending';
CREATE INDEX deliveries_newest ON deliveries (channel_id, created_at DESC, id DESC);
CREATE INDEX deliveries_settled ON deliveries (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX deliveries_of_notice ON deliveries (notice_id);

-- What was wrong when it was last looked, so that a change is noticed once, across restarts too.
CREATE TABLE conditions (
    -- The type of the notice that tells of it.
    event text NOT NULL,
    -- A host or a repository.
    subject uuid NOT NULL,
    -- A source group, or a kind of maintenance; else empty.
    name text NOT NULL,
    since timestamptz NOT NULL,
    -- What exactly is wrong, an array of words: more of it is news.
    marks jsonb NOT NULL,
    PRIMARY KEY (event, subject, name)
);

-- Repositories whose last check has found something, of each host that says so.
CREATE INDEX repository_stats_unsound ON repository_stats (repository_id)
    WHERE field = 'last_check_status' AND value <> '"ok"';
