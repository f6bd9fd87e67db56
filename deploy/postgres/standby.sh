#!/bin/sh
# A standby of the primary. It copies the primary, then follows it through a slot, so that the primary keeps what the
# standby has not read yet. If it was away for longer than that is kept, it copies the primary again, unless it was
# promoted. Arguments are passed to postgres.
set -eu
password="$(cat "${PASSWORD_FILE:-/run/secrets/database-password}")"
primary="host=${PRIMARY_HOST:-postgres} port=${PRIMARY_PORT:-5432} user=bandit application_name=standby"
slot=standby
server=
trap 'end TERM' TERM
trap 'end INT' INT
trap 'end QUIT' QUIT

end() { # passes the signal to postgres; before it runs there is nothing to close
  [ -n "$server" ] || exit 1
  ended=yes
  kill -s "$1" "$server" 2>/dev/null || true
}

ask() { # one command of the replication protocol
  PGPASSWORD="$password" psql "$primary dbname=postgres replication=true" --no-psqlrc --quiet --command "$1" >/dev/null
}

copy() {
  ask IDENTIFY_SYSTEM || return 1 # before the present data is removed
  rm -rf "${PGDATA:?}"/* # left by an interrupted copy, or by one that is too old
  ask "DROP_REPLICATION_SLOT $slot" 2>/dev/null || true # an earlier slot may have lost what it had to keep
  PGPASSWORD="$password" pg_basebackup --dbname "$primary" --pgdata "$PGDATA" --write-recovery-conf --create-slot \
    --slot "$slot" --wal-method stream --checkpoint fast && touch "$PGDATA/copied" # this file stays when it is promoted
}

watch() { # prints what postgres says, and ends postgres when it can no longer follow
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
  # Once promoted, it has no standby of its own and waits for none.
  postgres -c synchronous_standby_names= "$@" 2>"$said" &
  server=$!
  watch "$server" <"$said" &
  watcher=$!
  status=0
  while kill -0 "$server" 2>/dev/null; do # a signal ends `wait` early
    wait "$server" && status=0 || status=$?
  done
  wait "$watcher" || true
  server=
  [ -e "$PGDATA/copied" ] || continue # it is copied again
  exit "$status"
done
