-- Version 1. Integer keys: text keys would double the cost of a stanza. Records are the bytes that the embedded engine stores.

-- One row: the version of the schema, and what all nodes share.
CREATE TABLE pushward (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL,
    resource_key bytea NOT NULL,
    -- Set when everything was copied to another engine: nothing may be served from here.
    moved boolean NOT NULL DEFAULT false
);

-- The nodes. A node may write as long as the row has its epoch.
CREATE TABLE node (
    id smallint PRIMARY KEY,
    epoch bigint NOT NULL,
    address text NOT NULL,
    -- SHA-256 of its certificate.
    certificate bytea NOT NULL,
    lease_until timestamptz NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    -- The number of the handover that its process began.
    handover bigint
);

-- An account belongs to a node if the node's row has the same epoch.
CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    jid text COLLATE "C" NOT NULL UNIQUE,
    owner smallint,
    owner_epoch bigint,
    revision bigint NOT NULL DEFAULT 0,
    last_login bigint NOT NULL DEFAULT 0,
    record bytea
);
CREATE INDEX account_owner ON account (owner, owner_epoch) WHERE owner IS NOT NULL;

-- The account of each name with which a client has logged in.
CREATE TABLE login (
    host text COLLATE "C" NOT NULL,
    authcid text COLLATE "C" NOT NULL,
    account bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    PRIMARY KEY (host, authcid)
);
CREATE INDEX login_account ON login (account);

-- The spools, named by the login whose session created them. reader: the login whose session reads it.
CREATE TABLE session (
    account bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    login bigint NOT NULL,
    device bigint NOT NULL,
    reader bigint NOT NULL,
    PRIMARY KEY (account, login)
);

-- The stanzas. Without references: they would cost a look-up for each stanza.
CREATE TABLE spool (
    account bigint NOT NULL,
    session bigint NOT NULL,
    seq bigint NOT NULL,
    stanza bytea NOT NULL,
    PRIMARY KEY (account, session, seq)
);
-- Stanzas are short and leave soon: neither compression nor a table of their own pays.
ALTER TABLE spool ALTER COLUMN stanza SET STORAGE EXTERNAL;

CREATE TABLE tombstone (
    sm_id text COLLATE "C" PRIMARY KEY,
    jid text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX tombstone_jid ON tombstone (jid);

CREATE TABLE wake (
    account bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    device bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (account, device)
);

-- Every transaction that writes begins with this. It holds the node's row until the end of the transaction, so that no other
-- node can raise the epoch before, and lets one transaction of a node at a time pass: once it returns, the outcome of earlier
-- ones is decided.
CREATE FUNCTION pushward_fence(me smallint, mine bigint, may_be_single boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1886745704, me);
    PERFORM 1 FROM node WHERE id = me AND epoch = mine FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the epoch % of node % has passed', mine, me USING ERRCODE = 'PW001';
    END IF;
    IF NOT may_be_single AND current_setting('synchronous_standby_names') = '' THEN
        RAISE EXCEPTION 'synchronous_standby_names is empty' USING ERRCODE = 'PW002';
    END IF;
END
$$;
