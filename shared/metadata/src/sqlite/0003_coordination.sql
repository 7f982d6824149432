-- One row. Each transaction that changes tables or the placement map raises it first, which also makes them take turns.
CREATE TABLE changes (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    version     INTEGER NOT NULL
) STRICT;
INSERT INTO changes (one, version) VALUES (1, 1);

-- The version of `changes` at the last change of this life.
ALTER TABLE tables ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tables_changed ON tables (changed);

-- What was noted of nodes is renewed when they register again.
DROP TABLE nodes;
CREATE TABLE nodes (
    node            INTEGER PRIMARY KEY,
    epoch           INTEGER NOT NULL,
    zone            TEXT,
    addresses       TEXT    NOT NULL,
    heartbeat_at    INTEGER NOT NULL
) STRICT;

-- A lease that was given up or has run out keeps its row, so that its epoch goes on rising.
CREATE TABLE leases (
    name        TEXT    PRIMARY KEY,
    holder      TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `share`: millionths of the tenant's budget.
CREATE TABLE budget_shares (
    tenant      INTEGER NOT NULL,
    gateway     TEXT    NOT NULL,
    want        INTEGER NOT NULL,
    share       INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, gateway)
) STRICT, WITHOUT ROWID;
CREATE INDEX budget_shares_of ON budget_shares (gateway);
CREATE INDEX budget_shares_end ON budget_shares (expires_at);
