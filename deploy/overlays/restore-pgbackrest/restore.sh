#!/usr/bin/env bash
# Brings the data directory $PGDATA to what the cluster was at $TARGET, and leaves it like that of a primary that was
# stopped in good order: the member that starts on it leads, and everybody else is cloned from it.
set -euo pipefail

: "${PGDATA:?the data directory}" "${TARGET:?the point in time, as in 2026-01-02 03:04:05+00}"

# Only what differs is fetched, where something is there already.
pgbackrest --stanza=pg --delta --type=time "--target=$TARGET" --target-action=promote restore

state() { pg_controldata "$PGDATA" | sed -n 's/^Database cluster state: *//p'; }

# Without clients, and without being asked for as many connections as the cluster had: only to replay. Archiving is as
# it was, so that the archive has no gap.
pg_ctl --pgdata="$PGDATA" --wait \
    --options="-c hot_standby=off -c listen_addresses= -c unix_socket_directories=/tmp -c ssl=off" start
# That it runs is not that it has replayed everything. A look each second, and as long as it takes.
until [ "$(state)" = "in production" ]; do
    if ! pg_ctl --pgdata="$PGDATA" status >/dev/null; then
        echo "PostgreSQL ended before it came to $TARGET: its last lines above say why" >&2
        exit 1
    fi
    sleep 1
done
# 3600 s: an hour for the last segments to be archived.
pg_ctl --pgdata="$PGDATA" --wait --timeout=3600 --mode=fast stop
[ "$(state)" = "shut down" ]
echo "restored to $TARGET"
