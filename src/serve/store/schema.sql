-- The service's database. Times are milliseconds since 1970; ids are UUIDs of version 7 as 16
-- bytes, which sort by time; enumerations and JSON are as the API shows them.

CREATE TABLE tenants (
    name     TEXT PRIMARY KEY,
    settings TEXT NOT NULL          -- JSON of Tenant
) STRICT;

CREATE TABLE keys (
    id      BLOB PRIMARY KEY,
    tenant  TEXT NOT NULL,
    name    TEXT NOT NULL,
    hash    BLOB NOT NULL UNIQUE,   -- SHA-256 of the key
    scopes  TEXT NOT NULL,          -- JSON list
    created INTEGER NOT NULL,
    revoked INTEGER,
    UNIQUE (tenant, name)
) STRICT;

-- What the engine found in a content, for all the tenant's jobs with this content.
CREATE TABLE reports (
    id          INTEGER PRIMARY KEY,
    tenant      TEXT NOT NULL,
    sha256      TEXT,               -- NULL: not to be given to other jobs
    fingerprint TEXT NOT NULL,      -- of the engine
    found       INTEGER NOT NULL,   -- detectors that judged a segment to be fake, a bit each
    summary     TEXT NOT NULL,      -- JSON
    report      TEXT NOT NULL,      -- JSON, without the media's path
    UNIQUE (tenant, sha256, fingerprint)
) STRICT;

CREATE TABLE jobs (
    id           BLOB PRIMARY KEY,
    tenant       TEXT NOT NULL,
    state        TEXT NOT NULL,
    priority     TEXT NOT NULL,
    source       TEXT NOT NULL,     -- JSON
    name         TEXT NOT NULL,     -- what the source calls it
    reference    TEXT,
    declared_ai  INTEGER NOT NULL,
    sha256       TEXT,
    bytes        INTEGER,
    fingerprint  TEXT,              -- of the engine that judged it
    submitted_at INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    attempts     INTEGER NOT NULL DEFAULT 0,
    reused       INTEGER NOT NULL DEFAULT 0,
    action       TEXT,
    disposition  TEXT,
    outcome      TEXT,              -- JSON
    error        TEXT,              -- JSON
    decision     TEXT,              -- JSON, the last one
    media        INTEGER NOT NULL,  -- 0: none here, 1: in uploads, 2: a file of the server's own
    report       INTEGER REFERENCES reports (id)
) STRICT;
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_by_action ON jobs (tenant, action, id) WHERE action IS NOT NULL;
CREATE INDEX jobs_by_report ON jobs (report) WHERE report IS NOT NULL;
CREATE INDEX jobs_unfinished ON jobs (tenant, id) WHERE finished_at IS NULL;
CREATE INDEX jobs_finished ON jobs (tenant, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_with_media ON jobs (tenant, finished_at)
    WHERE media = 1 AND finished_at IS NOT NULL;

-- Small uploads, as long as their jobs have media; larger ones are files.
CREATE TABLE uploads (
    job   BLOB PRIMARY KEY REFERENCES jobs (id),
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE decisions (
    id       INTEGER PRIMARY KEY,
    job      BLOB NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    decision TEXT NOT NULL          -- JSON
) STRICT;
CREATE INDEX decisions_of_job ON decisions (job, id);

CREATE TABLE idempotency (
    tenant  TEXT NOT NULL,
    key     TEXT NOT NULL,
    digest  TEXT NOT NULL,          -- of the request
    job     BLOB NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created);

-- Calls of tenants' webhooks.
CREATE TABLE deliveries (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    job        BLOB NOT NULL,
    event      TEXT NOT NULL,
    body       TEXT NOT NULL,       -- JSON, as it is signed
    state      TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    next_at    INTEGER NOT NULL,
    last_error TEXT
) STRICT;
CREATE INDEX deliveries_due ON deliveries (tenant, next_at, id) WHERE state = 'pending';
CREATE INDEX deliveries_of_tenant ON deliveries (tenant, id);
CREATE INDEX deliveries_by_age ON deliveries (created) WHERE state <> 'pending';

-- Who did what, kept whatever is deleted.
CREATE TABLE audit (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    key    TEXT NOT NULL,           -- the API key's name; empty: the service itself
    what   TEXT NOT NULL,
    job    BLOB,
    detail TEXT NOT NULL            -- JSON
) STRICT;
CREATE INDEX audit_by_age ON audit (at);
CREATE INDEX audit_of_job ON audit (job) WHERE job IS NOT NULL;
