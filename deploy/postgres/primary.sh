#!/bin/sh
# Run once by the image of PostgreSQL, when its data directory is new: a standby may copy from it, and nothing is
# acknowledged before the standby has it on its disk. Not by the command line: what this run itself commits would wait.
set -eu
echo "host replication all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
echo "synchronous_standby_names = 'ANY 1 (standby)'" >>"$PGDATA/postgresql.conf"
