"""The tables of the fleet, as migrations.

Invariants that the tables hold: a release sequence stands for one content (``ledger``); an assignment exists once per
campaign generation and vehicle; at most one action of an assignment is not closed; ``tally`` counts assignments by
wave, platform and state, and is written in the transaction that changes a state. Names, never ordinals; times are
microseconds since 1970 UTC; flags are 0 or 1. A wave opens by one row, whatever its size: an assignment of an opened
wave stays ``pending`` until its vehicle asks.
"""

from __future__ import annotations

from nwmctl.fleet.director_schema import MIGRATIONS as DIRECTOR
from nwmctl.storage.database import Migration

OWNER = "fleet"

_VEHICLES = """
CREATE TABLE fleet (
  name TEXT PRIMARY KEY,
  is_virtual INTEGER NOT NULL,
  poll_s DOUBLE PRECISION NOT NULL
);
CREATE TABLE vehicle (
  vin TEXT PRIMARY KEY,
  vin_hash BIGINT NOT NULL,
  fleet TEXT NOT NULL REFERENCES fleet (name),
  vehicle_model TEXT NOT NULL,
  platform TEXT NOT NULL,
  variant TEXT NOT NULL,
  baseline TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  token_sha256 TEXT NOT NULL,
  seen_us BIGINT NOT NULL DEFAULT 0,
  reported_us BIGINT NOT NULL DEFAULT 0,
  attributes TEXT NOT NULL DEFAULT '{}',
  slot_active TEXT NOT NULL DEFAULT '',
  slot_a_sequence BIGINT,
  slot_a_intact INTEGER NOT NULL DEFAULT 0,
  slot_b_sequence BIGINT,
  slot_b_intact INTEGER NOT NULL DEFAULT 0
);
"""

_RELEASES = """
CREATE TABLE ledger (
  sequence BIGINT PRIMARY KEY,
  content TEXT NOT NULL,
  release_name TEXT NOT NULL
);
CREATE TABLE bundle (
  release_sequence BIGINT NOT NULL REFERENCES ledger (sequence),
  kind TEXT NOT NULL,
  platform TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  model_version TEXT NOT NULL,
  filename TEXT NOT NULL,
  path TEXT NOT NULL,
  tuf_name TEXT NOT NULL,
  sha1 TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  size BIGINT NOT NULL,
  virtual_only INTEGER NOT NULL,
  PRIMARY KEY (release_sequence, kind, platform)
);
"""

_CAMPAIGNS = """
CREATE TABLE campaign (
  id AUTO_ID,
  name TEXT NOT NULL UNIQUE,
  fleet TEXT NOT NULL REFERENCES fleet (name),
  release_sequence BIGINT NOT NULL REFERENCES ledger (sequence),
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  generation INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  poll_s DOUBLE PRECISION NOT NULL,
  reason TEXT NOT NULL,
  created_us BIGINT NOT NULL,
  updated_us BIGINT NOT NULL,
  swept_us BIGINT NOT NULL DEFAULT 0,
  UNIQUE (fleet, release_sequence)
);
CREATE TABLE wave (
  campaign_id BIGINT NOT NULL REFERENCES campaign (id),
  generation INTEGER NOT NULL,
  number INTEGER NOT NULL,
  name TEXT NOT NULL,
  state TEXT NOT NULL,
  min_committed DOUBLE PRECISION NOT NULL,
  max_failed DOUBLE PRECISION NOT NULL,
  abort_failed DOUBLE PRECISION NOT NULL,
  soak_s DOUBLE PRECISION NOT NULL,
  opened_us BIGINT,
  quiet_since_us BIGINT,
  forgiven INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (campaign_id, generation, number)
);
CREATE TABLE wave_quota (
  campaign_id BIGINT NOT NULL REFERENCES campaign (id),
  wave INTEGER NOT NULL,
  vehicle_model TEXT NOT NULL,
  above_rank BIGINT NOT NULL,
  upto_rank BIGINT NOT NULL,
  PRIMARY KEY (campaign_id, vehicle_model, wave)
);
CREATE TABLE tally (
  campaign_id BIGINT NOT NULL REFERENCES campaign (id),
  generation INTEGER NOT NULL,
  wave INTEGER NOT NULL,
  platform TEXT NOT NULL,
  state TEXT NOT NULL,
  vehicles BIGINT NOT NULL,
  PRIMARY KEY (campaign_id, generation, wave, platform, state)
);
"""

# The partial indexes hold open rows only: a poll looks at what a vehicle owes now, not at its history.
_ASSIGNMENTS = """
CREATE TABLE assignment (
  id AUTO_ID,
  campaign_id BIGINT NOT NULL REFERENCES campaign (id),
  generation INTEGER NOT NULL,
  wave INTEGER NOT NULL,
  vin TEXT NOT NULL REFERENCES vehicle (vin),
  platform TEXT NOT NULL,
  state TEXT NOT NULL,
  is_open INTEGER NOT NULL,
  mode TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  from_sequence BIGINT NOT NULL,
  to_sequence BIGINT NOT NULL,
  updated_us BIGINT NOT NULL,
  UNIQUE (campaign_id, generation, vin)
);
CREATE INDEX assignment_owed ON assignment (vin) WHERE is_open = 1;
CREATE TABLE action (
  id AUTO_ID,
  assignment_id BIGINT NOT NULL REFERENCES assignment (id),
  campaign_id BIGINT NOT NULL REFERENCES campaign (id),
  generation INTEGER NOT NULL,
  vin TEXT NOT NULL REFERENCES vehicle (vin),
  attempt INTEGER NOT NULL,
  mode TEXT NOT NULL,
  state TEXT NOT NULL,
  started INTEGER NOT NULL DEFAULT 0,
  restarts INTEGER NOT NULL DEFAULT 0,
  opened_us BIGINT NOT NULL,
  closed_us BIGINT,
  UNIQUE (assignment_id, attempt)
);
CREATE INDEX action_unclosed ON action (vin) WHERE state <> 'closed';
CREATE INDEX action_unclosed_of ON action (campaign_id, generation) WHERE state <> 'closed';
CREATE UNIQUE INDEX action_one_unclosed ON action (assignment_id) WHERE state <> 'closed';
"""

_FACTS = """
CREATE TABLE feedback (
  id AUTO_ID,
  action_id BIGINT NOT NULL REFERENCES action (id),
  vin TEXT NOT NULL,
  at_us BIGINT NOT NULL,
  heard TEXT NOT NULL,
  stage TEXT NOT NULL,
  progress_done BIGINT,
  progress_of BIGINT,
  details TEXT NOT NULL,
  late INTEGER NOT NULL
);
CREATE INDEX feedback_of_vehicle ON feedback (vin, id);
CREATE TABLE event (
  number BIGINT PRIMARY KEY,
  at_us BIGINT NOT NULL,
  kind TEXT NOT NULL,
  campaign_id BIGINT,
  vin TEXT,
  data TEXT NOT NULL,
  hash TEXT NOT NULL
);
CREATE INDEX event_of_vehicle ON event (vin, number) WHERE vin IS NOT NULL;
CREATE INDEX event_of_campaign ON event (campaign_id, number) WHERE vin IS NULL;
CREATE TABLE lease (
  name TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  expires_us BIGINT NOT NULL
);
"""

# A campaign without a row has no budget: nothing is counted and nobody is deferred.
_TRAFFIC = """
ALTER TABLE vehicle ADD COLUMN link TEXT NOT NULL DEFAULT '';
CREATE TABLE campaign_bytes (
  campaign_id BIGINT PRIMARY KEY REFERENCES campaign (id),
  cellular_budget BIGINT,
  total_budget BIGINT,
  full_on_cellular INTEGER NOT NULL,
  cellular_spent BIGINT NOT NULL DEFAULT 0,
  total_spent BIGINT NOT NULL DEFAULT 0
);
"""

# What a bundle requires, as canonical JSON; where a vehicle is registered, '' where the inventory does not say.
_TERMS = """
ALTER TABLE bundle ADD COLUMN requires TEXT NOT NULL DEFAULT '{}';
ALTER TABLE vehicle ADD COLUMN market TEXT NOT NULL DEFAULT '';
"""

# Bundles with deltas: each serves the vehicles that run one sequence. An action remembers from which sequence its delta
# starts (NULL: the full bundle). A campaign whose release had deltas when it was made counts what it offers. A release
# takes its census once; ``ledger.census`` names it.
_DELTAS = """
CREATE TABLE delta_bundle (
  release_sequence BIGINT NOT NULL REFERENCES ledger (sequence),
  platform TEXT NOT NULL,
  base_sequence BIGINT NOT NULL,
  filename TEXT NOT NULL,
  path TEXT NOT NULL,
  tuf_name TEXT NOT NULL,
  sha1 TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  size BIGINT NOT NULL,
  PRIMARY KEY (release_sequence, platform, base_sequence)
);
CREATE TABLE campaign_ways (
  campaign_id BIGINT PRIMARY KEY REFERENCES campaign (id),
  delta_offers BIGINT NOT NULL DEFAULT 0,
  delta_bytes BIGINT NOT NULL DEFAULT 0,
  full_offers BIGINT NOT NULL DEFAULT 0,
  full_bytes BIGINT NOT NULL DEFAULT 0
);
ALTER TABLE action ADD COLUMN base_sequence BIGINT;
ALTER TABLE assignment ADD COLUMN delta_failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN census TEXT NOT NULL DEFAULT '';
"""

# The number of the report with which a vehicle began an action anew for the last time; 0 where it never did.
_RUNS = """
ALTER TABLE action ADD COLUMN run_from BIGINT NOT NULL DEFAULT 0;
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(OWNER, 1, _VEHICLES + _RELEASES + _CAMPAIGNS + _ASSIGNMENTS + _FACTS),
    Migration(OWNER, 2, _TRAFFIC),
    Migration(OWNER, 3, _TERMS),
    Migration(OWNER, 4, _RUNS),
    Migration(OWNER, 5, _DELTAS),
    *DIRECTOR,
)
"""Add to the end only; what stands here has run in other people's databases."""
