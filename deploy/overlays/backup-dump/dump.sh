#!/usr/bin/env bash
# dump.sh FOLDER: one compressed dump of all databases and roles into FOLDER, of which the newest $KEEP stay.
# A dump has its name only when it is whole; whatever fails leaves the older ones alone.
set -euo pipefail

folder=$1
keep=${KEEP:?the number of dumps to keep}
umask 077

name=$folder/$(date -u +%Y%m%dT%H%M%SZ).sql.gz
# Left over by a try that was cut off.
rm -f "$folder"/*.partial
pg_dumpall --no-password | gzip >"$name.partial"

# The last thing that pg_dumpall writes.
if ! gzip -dc "$name.partial" | tail -n 5 | grep -q 'PostgreSQL database cluster dump complete'; then
    echo "the dump is not whole: $name.partial" >&2
    exit 1
fi
sync "$name.partial"
mv "$name.partial" "$name"
sync "$folder"
echo "dumped $(stat -c %s "$name") bytes into $name"

# By name is by time. Names are made above and hold no spaces.
find "$folder" -maxdepth 1 -name '*.sql.gz' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    rm -f "$old"
    echo "removed $old"
done
