-- Replicas on their way, by partition, and nodes that are to hold nothing.
ALTER TABLE placement ADD COLUMN moves TEXT NOT NULL DEFAULT '{}';
ALTER TABLE placement ADD COLUMN draining TEXT NOT NULL DEFAULT '[]';
