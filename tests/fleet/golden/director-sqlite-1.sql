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
  id INTEGER PRIMARY KEY,
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
