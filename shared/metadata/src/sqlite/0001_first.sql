CREATE TABLE tenants (
    tenant      INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- A name keeps its id through all lives of its table; AUTOINCREMENT never gives an id twice.
CREATE TABLE table_names (
    table_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant      INTEGER NOT NULL,
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    UNIQUE (tenant, namespace, name)
) STRICT;

-- One row per life of a table. `ended`: 0 living, 1 ended but not yet announced, 2 ended and announced.
CREATE TABLE tables (
    table_id        INTEGER NOT NULL REFERENCES table_names,
    generation      INTEGER NOT NULL,
    partitions      TEXT    NOT NULL,
    partition_by    TEXT,
    partition_seed  INTEGER NOT NULL,
    schema_version  INTEGER NOT NULL,
    settings        TEXT    NOT NULL,
    announced       INTEGER NOT NULL DEFAULT 0,
    ended           INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (table_id, generation)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX tables_one_life ON tables (table_id) WHERE ended = 0;
CREATE INDEX tables_unannounced ON tables (table_id) WHERE ended = 1 OR (ended = 0 AND announced < schema_version);

-- `kind`: 0 dimension, 1 metric.
CREATE TABLE columns (
    table_id        INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    kind            INTEGER NOT NULL,
    since_version   INTEGER NOT NULL,
    PRIMARY KEY (table_id, generation, position),
    UNIQUE (table_id, generation, name),
    FOREIGN KEY (table_id, generation) REFERENCES tables
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    node            INTEGER PRIMARY KEY,
    zone            TEXT,
    address         TEXT    NOT NULL,
    heartbeat_at    INTEGER NOT NULL
) STRICT;

-- One row: the newest map.
CREATE TABLE placement (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    version     INTEGER NOT NULL,
    replicas    TEXT    NOT NULL
) STRICT;

CREATE TABLE secrets (
    name    TEXT PRIMARY KEY,
    value   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
