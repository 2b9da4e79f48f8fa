#!/usr/bin/env bash
# Restores the data directory $PGDATA to the state of the cluster at $TARGET, and leaves it like that of a primary that
# was stopped cleanly: the member that starts on it leads, and the others are cloned from it.
set -euo pipefail

: "${PGDATA:?the data directory}" "${TARGET:?the point in time, as in 2026-01-02 03:04:05+00}"

# If files exist already, only those that differ are fetched.
pgbackrest --stanza=pg --delta --type=time "--target=$TARGET" --target-action=promote restore

state() { pg_controldata "$PGDATA" | sed -n 's/^Database cluster state: *//p'; }

# PostgreSQL runs without clients, and with fewer connections than the cluster had: only to replay. Archiving is as it
# was, so that the archive has no gap.
pg_ctl --pgdata="$PGDATA" --wait \
    --options="-c hot_standby=off -c listen_addresses= -c unix_socket_directories=/tmp -c ssl=off" start
# A server that runs may not have replayed everything yet. Check each second, without a limit.
until [ "$(state)" = "in production" ]; do
    if ! pg_ctl --pgdata="$PGDATA" status >/dev/null; then
        echo "PostgreSQL ended before it came to $TARGET: its last lines above say why" >&2
        exit 1
    fi
    sleep 1
done
# 3600 s: the last segments have an hour to be archived.
pg_ctl --pgdata="$PGDATA" --wait --timeout=3600 --mode=fast stop
[ "$(state)" = "shut down" ]
echo "restored to $TARGET"
