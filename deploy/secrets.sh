#!/usr/bin/env bash
# Prints the Secrets that the overlays need: random passwords, and certificates from two authorities of your own, one for
# PostgreSQL and one for etcd, whose keys stay in FOLDER and never enter the cluster. `create` never overwrites:
#
#   deploy/secrets.sh NAMESPACE FOLDER | kubectl -n NAMESPACE create -f -
#   deploy/secrets.sh NAMESPACE FOLDER certificates | kubectl -n NAMESPACE apply -f -    # renewal, same authorities
#   deploy/secrets.sh NAMESPACE FOLDER passwords | kubectl -n NAMESPACE create -f -      # with overlays/cert-manager
#
# Keep FOLDER out of git and in a safe place: its owner can pose as any member.
set -euo pipefail

if [ $# -lt 2 ] || [[ ! "${3:-all}" =~ ^(all|certificates|passwords)$ ]]; then
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
namespace=$1 folder=$2 what=${3:-all}

# Ten years for authorities, two for certificates. Renew the certificates in time: it is not automatic.
ca_days=3650
certificate_days=730

umask 077
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# secret NAME KEY=FILE ...
secret() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\ntype: Opaque\ndata:\n' "$1"
    shift
    local pair
    for pair in "$@"; do
        printf '  %s: %s\n' "${pair%%=*}" "$(base64 -w 0 <"${pair#*=}")"
    done
}

passwords() {
    local name pairs=()
    for name in superuser replication rewind restapi pooler; do
        # 24 bytes are 192 bits. Hexadecimal, so that no file format and no URL needs quotes. No newline at the end.
        printf '%s' "$(openssl rand -hex 24)" >"$work/$name"
        pairs+=("$name-password=$work/$name")
    done
    # The same password in PgBouncer's format.
    printf '"pooler" "%s"\n' "$(cat "$work/pooler")" >"$work/userlist"
    secret pg-credentials "${pairs[@]}" "userlist.txt=$work/userlist"
}

# authority NAME: makes FOLDER/NAME.crt and .key if they are missing.
authority() {
    [ -f "$folder/$1.key" ] && return
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "$ca_days" \
        -subj "/CN=$1" -keyout "$folder/$1.key" -out "$folder/$1.crt" \
        -addext keyUsage=critical,keyCertSign,cRLSign 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
}

# certificate SECRET AUTHORITY COMMON_NAME USAGE [NAMES]: NAMES as openssl's subjectAltName.
certificate() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$3" \
        -keyout "$work/tls.key" -out "$work/tls.csr" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    {
        echo "basicConstraints=critical,CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=$4"
        if [ -n "${5:-}" ]; then echo "subjectAltName=$5"; fi
    } >"$work/extensions"
    openssl x509 -req -in "$work/tls.csr" -CA "$folder/$2.crt" -CAkey "$folder/$2.key" -days "$certificate_days" \
        -extfile "$work/extensions" -out "$work/tls.crt" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    secret "$1" "ca.crt=$folder/$2.crt" "tls.crt=$work/tls.crt" "tls.key=$work/tls.key"
}

# service_names SERVICE: the names by which pods of its namespace, and of others, reach it.
service_names() { printf 'DNS:%s,DNS:%s.%s,DNS:%s.%s.svc' "$1" "$1" "$namespace" "$1" "$namespace"; }

certificates() {
    authority postgres-ca
    authority etcd-ca
    local names service
    names=$(service_names pg-rw),$(service_names pg-ro)
    # As many members as rbac.yaml names, one by one: not every client accepts a wildcard below one label.
    for service in pg-{0..8}; do
        names+=",DNS:$service.pg-members"
    done
    # clientAuth too: pgBackRest presents it when it fetches backups.
    certificate pg-postgres-tls postgres-ca pg serverAuth,clientAuth "$names"
    certificate pg-pooler-tls postgres-ca pooler serverAuth "$(service_names pg-pooler)"
    # Every name one by one: etcd resolves each to compare it with a peer's address, and cannot resolve a wildcard.
    names=$(service_names etcd),DNS:localhost,IP:127.0.0.1
    for service in etcd-0 etcd-1 etcd-2; do
        names+=",DNS:$service,DNS:$service.etcd"
    done
    certificate etcd-tls etcd-ca etcd serverAuth,clientAuth "$names"
    certificate pg-etcd-client-tls etcd-ca pg clientAuth
}

case $what in
    all)
        passwords
        certificates
        ;;
    passwords) passwords ;;
    certificates) certificates ;;
esac
