-- Indexes that are made once the table is filled, which is faster.
CREATE INDEX IF NOT EXISTS device_name ON device (name);
CREATE INDEX IF NOT EXISTS device_site ON device (site, name);
CREATE INDEX IF NOT EXISTS device_version ON device (version_key, name);
CREATE INDEX IF NOT EXISTS device_model ON device (model, version);
CREATE INDEX IF NOT EXISTS device_answered ON device (answered, name);
CREATE INDEX IF NOT EXISTS device_reachable ON device (reachable);
ANALYZE;
