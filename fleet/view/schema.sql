-- device has what filters use, in narrow rows, because many filters read all of them.
CREATE TABLE device (
	id INTEGER PRIMARY KEY,
	feed INTEGER NOT NULL, -- which feed reported the device last
	key TEXT NOT NULL UNIQUE, -- in the engine
	name TEXT NOT NULL,
	address TEXT NOT NULL,
	site TEXT NOT NULL,
	pool TEXT NOT NULL,
	credentials TEXT NOT NULL,
	previous_credentials TEXT NOT NULL,
	rotating TEXT NOT NULL,
	note TEXT NOT NULL,
	device_id TEXT NOT NULL,
	model TEXT NOT NULL,
	hardware TEXT NOT NULL,
	version TEXT NOT NULL,
	version_key TEXT NOT NULL,
	format INTEGER NOT NULL,
	generation INTEGER NOT NULL,
	known INTEGER NOT NULL,
	reachable INTEGER NOT NULL,
	answered INTEGER NOT NULL, -- Unix time in nanoseconds
	busy INTEGER NOT NULL,
	last_campaign TEXT NOT NULL,
	last_outcome TEXT NOT NULL
) STRICT;
CREATE TABLE device_json (id INTEGER PRIMARY KEY, json BLOB NOT NULL) STRICT;
CREATE TABLE tag (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) STRICT, WITHOUT ROWID;
CREATE INDEX tag_id ON tag (id);

CREATE TABLE run (
	id INTEGER PRIMARY KEY,
	feed INTEGER NOT NULL,
	key TEXT NOT NULL UNIQUE,
	campaign TEXT NOT NULL,
	device TEXT NOT NULL,
	wave INTEGER NOT NULL,
	state TEXT NOT NULL,
	started INTEGER NOT NULL, -- Unix time in nanoseconds
	created INTEGER NOT NULL,
	cause TEXT NOT NULL, -- of a run that failed; of others empty
	question TEXT NOT NULL, -- the group of the question that is open; '' if none is
	asked INTEGER NOT NULL,
	json BLOB NOT NULL -- without the record
) STRICT;
CREATE INDEX run_name ON run (campaign, device);
CREATE INDEX run_state ON run (campaign, state, device);
CREATE INDEX run_device ON run (device);
CREATE INDEX run_question ON run (question, asked) WHERE question <> '';

-- tally has the numbers of runs, so that nothing counts a million of them.
CREATE TABLE tally (
	campaign TEXT NOT NULL,
	wave INTEGER NOT NULL,
	state TEXT NOT NULL,
	n INTEGER NOT NULL,
	PRIMARY KEY (campaign, wave, state)
) STRICT, WITHOUT ROWID;
