#!/bin/sh
# A standby of the primary: copied, then it follows by a slot, so that the primary keeps what it has not read yet. Where it
# was away for longer than the primary keeps that, it is copied again, unless it was promoted. What is given is given to
# postgres.
set -eu
password="$(cat "${PASSWORD_FILE:-/run/secrets/database-password}")"
primary="host=${PRIMARY_HOST:-postgres} port=${PRIMARY_PORT:-5432} user=bandit application_name=standby"
slot=standby
server=
trap 'end TERM' TERM
trap 'end INT' INT
trap 'end QUIT' QUIT

end() { # passed on to postgres; before it runs there is nothing to close
  [ -n "$server" ] || exit 1
  ended=yes
  kill -s "$1" "$server" 2>/dev/null || true
}

ask() { # one command of the replication protocol
  PGPASSWORD="$password" psql "$primary dbname=postgres replication=true" --no-psqlrc --quiet --command "$1" >/dev/null
}

copy() {
  ask IDENTIFY_SYSTEM || return 1 # before what is here is removed
  rm -rf "${PGDATA:?}"/* # what a copy that was cut off, or one that is too old, has left
  ask "DROP_REPLICATION_SLOT $slot" 2>/dev/null || true # one of before may have lost what it was to keep
  PGPASSWORD="$password" pg_basebackup --dbname "$primary" --pgdata "$PGDATA" --write-recovery-conf --create-slot \
    --slot "$slot" --wal-method stream --checkpoint fast && touch "$PGDATA/copied" # which stays when it is promoted
}

watch() { # what postgres says is passed on; it is ended where it can follow no more
  while IFS= read -r line; do
    printf '%s\n' "$line" >&2
    case "$line" in
      *"has already been removed"* | *"can no longer get changes from replication slot"* | *"can no longer access replication slot"*)
        if [ -e "$PGDATA/standby.signal" ] && [ -e "$PGDATA/copied" ]; then
          echo "standby.sh: the primary keeps no more what this standby needs; it is copied again" >&2
          rm -f "$PGDATA/copied"
          kill -s INT "$1" 2>/dev/null || true
        fi
        ;;
    esac
  done
}

mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
said="$place/said"
mkfifo "$said"
ended=
while [ -z "$ended" ]; do
  until [ -e "$PGDATA/copied" ]; do
    copy || sleep 1
  done
  # Once it is promoted it has no standby of its own, and waits for none.
  postgres -c synchronous_standby_names= "$@" 2>"$said" &
  server=$!
  watch "$server" <"$said" &
  watcher=$!
  status=0
  while kill -0 "$server" 2>/dev/null; do # a signal cuts `wait` short
    wait "$server" && status=0 || status=$?
  done
  wait "$watcher" || true
  server=
  [ -e "$PGDATA/copied" ] || continue # copied again
  exit "$status"
done
