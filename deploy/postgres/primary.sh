#!/bin/sh
# The image of PostgreSQL runs this once, when its data directory is new. It lets a standby copy the data, and acknowledges
# a commit only when the standby has it on disk. This is not set on the command line, or this script's own commits would wait.
set -eu
echo "host replication all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
echo "synchronous_standby_names = 'ANY 1 (standby)'" >>"$PGDATA/postgresql.conf"
