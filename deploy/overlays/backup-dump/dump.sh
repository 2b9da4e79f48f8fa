#!/usr/bin/env bash
# dump.sh FOLDER: writes one compressed dump of all databases and roles into FOLDER. The newest $KEEP dumps stay.
# A dump gets its name only when it is complete. A failure leaves the older dumps alone.
set -euo pipefail

folder=$1
keep=${KEEP:?the number of dumps to keep}
umask 077

name=$folder/$(date -u +%Y%m%dT%H%M%SZ).sql.gz
# Left over from an interrupted try.
rm -f "$folder"/*.partial
pg_dumpall --no-password | gzip >"$name.partial"

# pg_dumpall writes this line last.
if ! gzip -dc "$name.partial" | tail -n 5 | grep -q 'PostgreSQL database cluster dump complete'; then
    echo "the dump is not whole: $name.partial" >&2
    exit 1
fi
sync "$name.partial"
mv "$name.partial" "$name"
sync "$folder"
echo "dumped $(stat -c %s "$name") bytes into $name"

# The order of the names is the order of time. The names are made above and contain no spaces.
find "$folder" -maxdepth 1 -name '*.sql.gz' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    rm -f "$old"
    echo "removed $old"
done
