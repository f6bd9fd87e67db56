#!/bin/sh
# A standby of the primary: copied once, then it follows. What is given is given to postgres.
set -eu
PGPASSWORD="$(cat "${PASSWORD_FILE:-/run/secrets/database-password}")"
export PGPASSWORD
primary="host=${PRIMARY_HOST:-postgres} port=${PRIMARY_PORT:-5432} user=bandit application_name=standby"
mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
until [ -e "$PGDATA/copied" ]; do
  rm -rf "${PGDATA:?}"/* # what a copy that was cut off has left
  if pg_basebackup --dbname "$primary" --pgdata "$PGDATA" --write-recovery-conf --wal-method stream --checkpoint fast; then
    touch "$PGDATA/copied" # stays when it is promoted
  else
    sleep 1
  fi
done
unset PGPASSWORD
# Once it is promoted it has no standby of its own, and waits for none.
exec postgres -c synchronous_standby_names= "$@"
