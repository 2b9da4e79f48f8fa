-- The account of PgBouncer, with one right: to read the password verifier of a user that logs in through PgBouncer.
-- This file can run again at any time, and then applies a changed password.
\set password `cat /etc/pooler/credentials/pooler-password`
SELECT 'CREATE ROLE pooler LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pooler') \gexec
ALTER ROLE pooler PASSWORD :'password';
CREATE SCHEMA IF NOT EXISTS pooler;
-- Never for superusers and replication roles: they do not connect through a pooler.
CREATE OR REPLACE FUNCTION pooler.lookup(who text) RETURNS TABLE (usename name, passwd text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT rolname, rolpassword FROM pg_authid
        WHERE rolname = who AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
            AND (rolvaliduntil IS NULL OR rolvaliduntil > now())
    $$;
REVOKE ALL ON FUNCTION pooler.lookup(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pooler TO pooler;
GRANT EXECUTE ON FUNCTION pooler.lookup(text) TO pooler;
