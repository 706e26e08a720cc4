-- Version 2: several nodes.

-- The time in seconds for which a renewal of the node's lease holds. Others wait for that time at least.
ALTER TABLE node ADD COLUMN lease double precision NOT NULL DEFAULT 10;

-- The node that has the connection of each component. It holds it if its row has the same epoch.
CREATE TABLE component (
    jid text COLLATE "C" PRIMARY KEY,
    owner smallint NOT NULL,
    owner_epoch bigint NOT NULL
);
