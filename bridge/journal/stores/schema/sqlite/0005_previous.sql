-- What came before an event at its endpoint is told the same on every attempt, whatever was pruned meanwhile.

ALTER TABLE delivery ADD COLUMN previous INTEGER;  -- NULL: not known, or a row from before there was this column
