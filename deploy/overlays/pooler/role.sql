-- The account of PgBouncer and the one thing that it may do: ask for the verifier of a user who logs in through it.
-- Can be run again at any time; takes over a changed password.
\set password `cat /etc/pooler/credentials/pooler-password`
SELECT 'CREATE ROLE pooler LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pooler') \gexec
ALTER ROLE pooler PASSWORD :'password';
CREATE SCHEMA IF NOT EXISTS pooler;
-- Never of those who may do everything or copy everything: they do not come through a pooler.
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
