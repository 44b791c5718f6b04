-- The role itself is made by role.sql, which runs first. Nothing outside the containers can reach the server.
ALTER ROLE pgevents PASSWORD 'pgevents';

CREATE TABLE orders (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    customer text NOT NULL,
    amount numeric(10, 2) NOT NULL,
    status text NOT NULL DEFAULT 'open'
);

-- With this an update shows what it changed.
ALTER TABLE orders REPLICA IDENTITY FULL;
