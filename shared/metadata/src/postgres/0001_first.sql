-- Numbers are BIGINT throughout: ids keep their bits, and one program text reads both databases.
CREATE TABLE tenants (
    tenant      BIGINT PRIMARY KEY,
    name        TEXT   NOT NULL,
    created_at  BIGINT NOT NULL
);

-- A name keeps its id through all lives of its table; an identity column never gives an id twice.
CREATE TABLE table_names (
    table_id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      BIGINT NOT NULL,
    namespace   TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    UNIQUE (tenant, namespace, name)
);

-- One row. Each transaction that changes tables or the placement map raises it first, which also makes them take turns.
CREATE TABLE changes (
    one         BIGINT PRIMARY KEY CHECK (one = 1),
    version     BIGINT NOT NULL
);
INSERT INTO changes (one, version) VALUES (1, 1);

-- One row per life. `ended`: 0 living, 1 ended but not yet announced, 2 ended and announced. `changed`: the version of
-- `changes` at the last change of this life.
CREATE TABLE tables (
    table_id        BIGINT NOT NULL REFERENCES table_names,
    generation      BIGINT NOT NULL,
    partitions      TEXT   NOT NULL,
    partition_by    TEXT,
    partition_seed  BIGINT NOT NULL,
    identity_seed   BIGINT NOT NULL,
    schema_version  BIGINT NOT NULL,
    settings        TEXT   NOT NULL,
    announced       BIGINT NOT NULL DEFAULT 0,
    ended           BIGINT NOT NULL DEFAULT 0,
    changed         BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (table_id, generation)
);

CREATE UNIQUE INDEX tables_one_life ON tables (table_id) WHERE ended = 0;
CREATE INDEX tables_unannounced ON tables (table_id) WHERE ended = 1 OR (ended = 0 AND announced < schema_version);
CREATE INDEX tables_changed ON tables (changed);

-- `kind`: 0 dimension, 1 metric.
CREATE TABLE columns (
    table_id        BIGINT NOT NULL,
    generation      BIGINT NOT NULL,
    position        BIGINT NOT NULL,
    name            TEXT   NOT NULL,
    kind            BIGINT NOT NULL,
    since_version   BIGINT NOT NULL,
    PRIMARY KEY (table_id, generation, position),
    UNIQUE (table_id, generation, name),
    FOREIGN KEY (table_id, generation) REFERENCES tables
);

CREATE TABLE nodes (
    node            BIGINT PRIMARY KEY,
    epoch           BIGINT NOT NULL,
    zone            TEXT,
    addresses       TEXT   NOT NULL,
    heartbeat_at    BIGINT NOT NULL
);

-- One row: the newest map.
CREATE TABLE placement (
    one         BIGINT PRIMARY KEY CHECK (one = 1),
    version     BIGINT NOT NULL,
    replicas    TEXT   NOT NULL
);

CREATE TABLE secrets (
    name    TEXT  PRIMARY KEY,
    value   BYTEA NOT NULL
);

-- A lease that was given up or has run out keeps its row, so that its epoch goes on rising.
CREATE TABLE leases (
    name        TEXT   PRIMARY KEY,
    holder      TEXT   NOT NULL,
    epoch       BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);

-- `share`: millionths of the tenant's budget.
CREATE TABLE budget_shares (
    tenant      BIGINT NOT NULL,
    gateway     TEXT   NOT NULL,
    want        BIGINT NOT NULL,
    share       BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, gateway)
);
CREATE INDEX budget_shares_of ON budget_shares (gateway);
CREATE INDEX budget_shares_end ON budget_shares (expires_at);
