"""The tables of the director: which computers vehicles have, what was signed for each, and what they reported.

A room of numbers of its own beside the fleet's, so that both grow apart. Invariants that the tables hold: one
registration, one director file and one report per vehicle, each the newest; a root version exists once in both
dialects; an event that a vehicle repeats is stored once. Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from nwmctl.storage.database import Migration

OWNER = "fleet_director"
"""Behind ``fleet`` in the alphabet: its tables refer to the vehicles."""

_TABLES = """
CREATE TABLE director_root (
  version BIGINT PRIMARY KEY,
  tuf TEXT NOT NULL,
  reference TEXT NOT NULL
);
CREATE TABLE vehicle_ecus (
  vin TEXT PRIMARY KEY REFERENCES vehicle (vin),
  dialect TEXT NOT NULL,
  primary_serial TEXT NOT NULL,
  ecus TEXT NOT NULL,
  ecus_sha256 TEXT NOT NULL,
  publics TEXT NOT NULL,
  counters TEXT NOT NULL DEFAULT '{}',
  reported_version BIGINT NOT NULL DEFAULT 0,
  registered_us BIGINT NOT NULL
);
CREATE TABLE director_file (
  vin TEXT PRIMARY KEY REFERENCES vehicle_ecus (vin),
  version BIGINT NOT NULL,
  content TEXT NOT NULL,
  expires_us BIGINT NOT NULL,
  body TEXT NOT NULL
);
CREATE TABLE vehicle_report (
  vin TEXT PRIMARY KEY REFERENCES vehicle_ecus (vin),
  at_us BIGINT NOT NULL,
  installed TEXT NOT NULL,
  versions TEXT NOT NULL,
  body TEXT NOT NULL
);
CREATE TABLE reported_metadata (
  role TEXT PRIMARY KEY,
  version BIGINT NOT NULL
);
CREATE TABLE vehicle_event (
  id AUTO_ID,
  vin TEXT NOT NULL REFERENCES vehicle (vin),
  event_id TEXT NOT NULL,
  at_us BIGINT NOT NULL,
  kind TEXT NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (vin, event_id)
);
CREATE TABLE vehicle_note (
  vin TEXT NOT NULL REFERENCES vehicle (vin),
  topic TEXT NOT NULL,
  at_us BIGINT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (vin, topic)
);
"""

MIGRATIONS: tuple[Migration, ...] = (Migration(OWNER, 1, _TABLES),)
"""Add to the end only; what stands here has run in other people's databases."""
