-- What a registration calls itself, so that the same one that comes twice is one; 0: nothing.
ALTER TABLE nodes ADD COLUMN registration INTEGER NOT NULL DEFAULT 0;
