-- Tables from before there was a seed keep 0: their partitions remember identities that were hashed with it.
ALTER TABLE tables ADD COLUMN identity_seed INTEGER NOT NULL DEFAULT 0;
