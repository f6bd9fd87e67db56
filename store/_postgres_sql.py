"""What the log in PostgreSQL consists of: tables, and procedures that commit by themselves.

A procedure holds the head only until its first commit, which flushes nothing; so a client that
stands still in the middle holds nobody up. The second commit is flushed, and what it says is
durable stands before it in the WAL (docs/adr/0017).

What waits for a flush, or for a synchronous standby, holds no lock that another replica needs. So
the other commits flush nothing: what they say may be lost with the server, and is said again.
"""

VERSION = 2
"""Of these statements; a database that has another is refused."""

FENCED, CONFLICT, OTHER_KEY, NO_LOG = "BF001", "BF003", "BF004", "BF002"

TABLES = """
CREATE TABLE bandit_schema (version int NOT NULL);
INSERT INTO bandit_schema VALUES (2);
CREATE TABLE bandit_head (
  log text PRIMARY KEY, seq bigint NOT NULL DEFAULT 0, chain bytea NOT NULL DEFAULT '',
  base bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE bandit_log (
  log text NOT NULL, seq bigint NOT NULL, eid bytea NOT NULL, at double precision NOT NULL,
  ts double precision NOT NULL, kind text NOT NULL, owner bytea NOT NULL, subject bytea,
  crc bigint NOT NULL, chain bytea, body bytea NOT NULL, PRIMARY KEY (log, seq));
ALTER TABLE bandit_log ALTER body SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX bandit_log_eid ON bandit_log (log, eid);
CREATE INDEX bandit_log_subject ON bandit_log (log, subject, seq) WHERE subject IS NOT NULL;
CREATE TABLE bandit_replica (
  log text NOT NULL, id int NOT NULL, name text NOT NULL, epoch bigint NOT NULL,
  seen timestamptz NOT NULL, closed_at bigint, durable bigint NOT NULL DEFAULT 0,
  settled double precision NOT NULL DEFAULT 0, clean boolean NOT NULL DEFAULT false,
  applied bigint NOT NULL DEFAULT 0, key text NOT NULL,
  digest_at bigint NOT NULL DEFAULT 0, digest text NOT NULL DEFAULT '',
  PRIMARY KEY (log, id), UNIQUE (log, name)
) WITH (fillfactor = 50);
CREATE TABLE bandit_lease (
  log text NOT NULL, role text NOT NULL, holder int NOT NULL, epoch bigint NOT NULL,
  expires timestamptz NOT NULL, PRIMARY KEY (log, role)) WITH (fillfactor = 50);
CREATE TABLE bandit_blob (
  hash bytea NOT NULL, part int NOT NULL, body bytea NOT NULL, PRIMARY KEY (hash, part));
ALTER TABLE bandit_blob ALTER body SET STORAGE EXTERNAL;
CREATE TABLE bandit_snapshot (
  log text NOT NULL, key text NOT NULL, seq bigint NOT NULL, hash bytea NOT NULL,
  size bigint NOT NULL, made timestamptz NOT NULL, PRIMARY KEY (log, key, seq));
"""

READS_TABLE = """
CREATE TABLE IF NOT EXISTS bandit_reads (
  log text NOT NULL, id int NOT NULL, epoch bigint NOT NULL, reads int NOT NULL,
  PRIMARY KEY (log, id)) WITH (fillfactor = 50)
"""
"""What each replica reads. It came later than the others, and a release before does not know it: a
replica that says nothing here reads the oldest format."""

BASE_COLUMN = "ALTER TABLE bandit_head ADD COLUMN IF NOT EXISTS base bigint NOT NULL DEFAULT 0"
"""Up to where records are trimmed. A release before neither has it nor trims."""

PUT = """
CREATE OR REPLACE PROCEDURE bandit_put(INOUT s bigint, l text, r int, e bigint, led text,
  led_epoch bigint, until float8, eids bytea[], tss float8[], kinds text[], owners bytea[],
  subjects bytea[], seens bigint[], crcs bigint[], bodies bytea[]) LANGUAGE plpgsql AS $$
DECLARE n int := cardinality(eids); c bytea; gone bigint;
  t float8 := extract(epoch FROM clock_timestamp());
BEGIN
  SET LOCAL synchronous_commit = off;
  SET LOCAL enable_seqscan = off;
  UPDATE bandit_head SET seq = seq + n,
    chain = sha256(chain || int8send(seq + n) || convert_to(array_to_string(crcs, ','), 'UTF8'))
    WHERE log = l RETURNING seq, chain, base INTO s, c, gone;
  IF s IS NULL THEN RAISE EXCEPTION 'no log' USING ERRCODE = 'BF002'; END IF;
  IF NOT EXISTS (SELECT 1 FROM bandit_replica
       WHERE log = l AND id = r AND epoch = e AND closed_at IS NULL)
     OR led <> '' AND NOT EXISTS (SELECT 1 FROM bandit_lease
       WHERE log = l AND role = led AND holder = r AND epoch = led_epoch)
  THEN RAISE EXCEPTION 'fenced' USING ERRCODE = 'BF001'; END IF;
  IF EXISTS (SELECT 1 FROM unnest(subjects, seens) AS u(subject, seen)
       WHERE u.subject IS NOT NULL AND (u.seen < gone OR EXISTS (SELECT 1 FROM bandit_log x
         WHERE x.log = l AND x.subject = u.subject AND x.seq > u.seen)))
  THEN RAISE EXCEPTION 'conflict' USING ERRCODE = 'BF003'; END IF;
  INSERT INTO bandit_log SELECT l, s - n + i, u.eid, t, u.ts, u.kind, u.owner, u.subject, u.crc,
      CASE WHEN i = n THEN c END, u.body
    FROM unnest(eids, tss, kinds, owners, subjects, crcs, bodies)
      WITH ORDINALITY AS u(eid, ts, kind, owner, subject, crc, body, i);
  COMMIT;
  SET LOCAL synchronous_commit = on;
  UPDATE bandit_replica SET durable = greatest(durable, s), settled = greatest(settled, until),
    seen = clock_timestamp() WHERE log = l AND id = r AND epoch = e;
  COMMIT;
END $$
"""

BEAT = """
CREATE PROCEDURE bandit_beat(INOUT ok boolean, l text, r int, e bigint, until float8, done bigint,
  marked bigint, hash text) LANGUAGE plpgsql AS $$
DECLARE upto bigint;
BEGIN
  SET LOCAL synchronous_commit = on;
  SELECT seq INTO upto FROM bandit_head WHERE log = l;
  UPDATE bandit_replica SET durable = greatest(durable, upto), settled = greatest(settled, until),
    applied = done, digest_at = marked, digest = hash, seen = clock_timestamp()
    WHERE log = l AND id = r AND epoch = e AND closed_at IS NULL;
  ok := FOUND;
  COMMIT;
END $$
"""

JOIN = """
CREATE PROCEDURE bandit_join(INOUT slot int, INOUT epoch bigint, INOUT settled float8,
  INOUT other text, l text, n text, k text, alive interval, gone interval, said int)
LANGUAGE plpgsql AS $$
DECLARE done bigint;
BEGIN
  SET LOCAL synchronous_commit = off;
  INSERT INTO bandit_head (log) VALUES (l) ON CONFLICT DO NOTHING;
  SELECT seq INTO done FROM bandit_head WHERE log = l FOR UPDATE;
  SELECT x.key INTO other FROM bandit_replica x WHERE x.log = l AND x.name <> n
    AND x.closed_at IS NULL AND x.seen > clock_timestamp() - alive AND x.key <> k LIMIT 1;
  IF other IS NULL THEN
    SELECT x.id INTO slot FROM bandit_replica x WHERE x.log = l AND x.name = n;
    IF slot IS NULL THEN
      SELECT x.id INTO slot FROM bandit_replica x WHERE x.log = l AND x.closed_at IS NOT NULL
        AND x.seen < clock_timestamp() - gone ORDER BY x.id LIMIT 1;
    END IF;
    IF slot IS NULL THEN
      SELECT coalesce(max(x.id), 0) + 1 INTO slot FROM bandit_replica x WHERE x.log = l;
    END IF;
    INSERT INTO bandit_replica AS x (log, id, name, epoch, seen, key)
      VALUES (l, slot, n, 1, clock_timestamp(), k)
      ON CONFLICT (log, id) DO UPDATE SET epoch = x.epoch + 1, name = n, key = k, closed_at = NULL,
        clean = false, digest_at = 0, digest = '', seen = clock_timestamp()
      RETURNING x.epoch INTO bandit_join.epoch;
    INSERT INTO bandit_reads VALUES (l, slot, bandit_join.epoch, said)
      ON CONFLICT ON CONSTRAINT bandit_reads_pkey
      DO UPDATE SET epoch = excluded.epoch, reads = excluded.reads;
    -- its ids come after whatever the others take as settled, whatever its clock says
    SELECT max(x.settled) INTO bandit_join.settled FROM bandit_replica x WHERE x.log = l;
  END IF;
  COMMIT;
END $$
"""

LEAVE = """
CREATE PROCEDURE bandit_leave(l text, r int, e bigint) LANGUAGE plpgsql AS $$
DECLARE s bigint;
BEGIN
  SET LOCAL synchronous_commit = off;
  SELECT seq INTO s FROM bandit_head WHERE log = l FOR UPDATE;
  UPDATE bandit_replica SET closed_at = s, seen = clock_timestamp()
    WHERE log = l AND id = r AND epoch = e AND closed_at IS NULL;
  IF NOT FOUND THEN RETURN; END IF;
  DELETE FROM bandit_lease WHERE log = l AND holder = r;
  COMMIT;
  SET LOCAL synchronous_commit = on;
  UPDATE bandit_replica SET clean = true, durable = greatest(durable, s)
    WHERE log = l AND id = r AND epoch = e;
  COMMIT;
END $$
"""

CLOSE_STALE = """
CREATE PROCEDURE bandit_close_stale(INOUT n int, l text, age interval) LANGUAGE plpgsql AS $$
DECLARE s bigint;
BEGIN
  n := 0;
  SET LOCAL synchronous_commit = off;
  IF EXISTS (SELECT 1 FROM bandit_replica
       WHERE log = l AND closed_at IS NULL AND seen < clock_timestamp() - age) THEN
    SELECT seq INTO s FROM bandit_head WHERE log = l FOR UPDATE;
    -- what it may still bring is waited for from now on, however long nobody was there
    UPDATE bandit_replica SET closed_at = s, seen = clock_timestamp() WHERE (log, id) IN (
      SELECT log, id FROM bandit_replica
        WHERE log = l AND closed_at IS NULL AND seen < clock_timestamp() - age
        FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
  END IF;
  COMMIT;
END $$
"""

LEAD = """
CREATE PROCEDURE bandit_lead(INOUT got bigint, l text, ro text, h int, e bigint, ttl interval)
LANGUAGE plpgsql AS $$
BEGIN
  SET LOCAL synchronous_commit = off;
  INSERT INTO bandit_lease AS x VALUES (l, ro, h, 1, clock_timestamp() + ttl)
  ON CONFLICT (log, role) DO UPDATE SET holder = h, expires = clock_timestamp() + ttl,
    epoch = x.epoch + CASE WHEN x.holder = h AND x.epoch = e THEN 0 ELSE 1 END
  WHERE x.holder = h AND x.epoch = e OR x.expires < clock_timestamp()
  RETURNING x.epoch INTO got;
  COMMIT;
END $$
"""

SCHEMA = (TABLES, READS_TABLE, PUT, BEAT, JOIN, LEAVE, CLOSE_STALE, LEAD)

FLUSH = "SET LOCAL synchronous_commit = on; UPDATE bandit_schema SET version = version"
THERE = """
SELECT 1 FROM pg_class WHERE relname = 'bandit_schema' AND pg_table_is_visible(oid)
"""
"""Not to_regclass: that would answer from a cache that another's commit has not reached."""

JOIN_THERE = """
SELECT 1 FROM pg_proc WHERE proname = 'bandit_join' AND pronargs = 10
  AND pg_function_is_visible(oid)
"""
"""With nine arguments it is that of a release before, which said apart what it reads."""

BASE_THERE = """
SELECT 1 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  WHERE c.relname = 'bandit_head' AND pg_table_is_visible(c.oid) AND a.attname = 'base'
"""

TAIL = """
SELECT seq, eid, ts, kind, owner, crc, chain, body FROM bandit_log WHERE log = $1 AND seq > $2
AND seq <= (SELECT max(durable) FROM bandit_replica WHERE log = $1) ORDER BY seq LIMIT $3
"""
FIND = "SELECT eid, seq FROM bandit_log WHERE log = $1 AND eid = ANY($2::bytea[])"
CONFLICTS = """
SELECT i, greatest((SELECT max(seq) FROM bandit_log x
    WHERE x.log = $1 AND x.subject = u.subject AND x.seq > u.seen),
  (SELECT base FROM bandit_head h WHERE h.log = $1 AND h.base > u.seen))
FROM unnest($2::bytea[], $3::bigint[]) WITH ORDINALITY AS u(subject, seen, i)
WHERE u.subject IS NOT NULL
"""
STATE = """
SELECT coalesce((SELECT seq FROM bandit_head WHERE log = $1), 0) AS head,
  coalesce((SELECT max(durable) FROM bandit_replica WHERE log = $1), 0) AS horizon,
  coalesce((SELECT min(settled) FROM bandit_replica WHERE log = $1
    AND (closed_at IS NULL OR NOT clean AND seen > clock_timestamp() - $2::interval)), 0)
    AS settled,
  coalesce((SELECT base FROM bandit_head WHERE log = $1), 0) AS base,
  extract(epoch FROM clock_timestamp())::float8 AS now
"""
REPLICAS = """
SELECT r.id, r.name, r.epoch, r.applied, r.durable, r.settled,
  extract(epoch FROM clock_timestamp() - r.seen)::float8 AS unseen, r.closed_at, r.key,
  r.digest_at, r.digest, coalesce((SELECT f.reads FROM bandit_reads f
    WHERE f.log = r.log AND f.id = r.id AND f.epoch = r.epoch), 1) AS reads,
  array(SELECT role FROM bandit_lease x
    WHERE x.log = r.log AND x.holder = r.id AND x.expires > clock_timestamp()) AS roles
FROM bandit_replica r WHERE r.log = $1 ORDER BY r.id
"""
FORGET = """
WITH found AS (UPDATE bandit_log SET body = '' WHERE log = $1 AND seq BETWEEN $2 AND $3
  AND owner = ANY($4::bytea[]) AND body <> '' RETURNING seq) SELECT count(*) AS n FROM found
"""
"""The CRC stays, since the chain covers it."""
BASE = "SELECT base FROM bandit_head WHERE log = $1"
SET_BASE = "UPDATE bandit_head SET base = greatest(base, least(seq, $2)) WHERE log = $1"
BEGIN_AFTER = "UPDATE bandit_head SET seq = $2, base = $2 WHERE log = $1 AND seq = 0"
OLDEST = "SELECT seq FROM bandit_log WHERE log = $1 ORDER BY seq LIMIT 1"
TRIM = "DELETE FROM bandit_log WHERE log = $1 AND seq BETWEEN $2 AND $3"
CHAIN_AT = "SELECT chain FROM bandit_log WHERE log = $1 AND seq = $2"
