-- All that PGEvents needs of a role to read a slot of wal2json.
CREATE ROLE pgevents LOGIN REPLICATION PASSWORD 'pgevents';

CREATE TABLE orders (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    customer text NOT NULL,
    amount numeric(10, 2) NOT NULL,
    status text NOT NULL DEFAULT 'open'
);

-- With this an update shows what it changed.
ALTER TABLE orders REPLICA IDENTITY FULL;
