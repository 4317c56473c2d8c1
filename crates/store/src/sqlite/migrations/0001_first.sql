-- One editable migration until the first release.
CREATE TABLE site (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    pin TEXT NOT NULL,
    -- The latest moment that a node noted. A clock far behind it is not believed.
    moment BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE account (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    common_name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE token (
    digest BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
) WITHOUT ROWID;

CREATE TABLE device (
    id BLOB PRIMARY KEY,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    user_name TEXT NOT NULL,
    enrolled_at BIGINT NOT NULL,
    host_name TEXT NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '{}',
    -- The record that took this one's place.
    successor BLOB,
    -- The record that this one takes the place of, once it is used.
    predecessor BLOB,
    -- An administrator allows one renewal after expiry until then.
    renewal_allowed_until BIGINT,
    -- What it claims, where two devices that claim it may be one computer; and since when.
    hardware_uuid TEXT,
    hardware_reported_at BIGINT,
    deleted_at BIGINT
) WITHOUT ROWID;
CREATE INDEX device_name ON device (host_name, id);
CREATE INDEX device_state ON device (state, host_name, id);
CREATE INDEX device_successor ON device (successor) WHERE successor IS NOT NULL;
CREATE INDEX device_hardware ON device (state, hardware_uuid, enrolled_at, id)
    WHERE hardware_uuid IS NOT NULL;
CREATE INDEX device_deleted ON device (deleted_at, id) WHERE deleted_at IS NOT NULL;

CREATE TABLE device_seen (device BLOB PRIMARY KEY, at BIGINT NOT NULL) WITHOUT ROWID;

CREATE TABLE certificate (
    serial BLOB PRIMARY KEY,
    device BLOB NOT NULL,
    owner TEXT NOT NULL,
    key BLOB NOT NULL,
    state TEXT NOT NULL,
    -- Counts a device's certificates. Clocks may step back; this does not.
    generation BIGINT NOT NULL,
    -- 1 when a person logged in for it, 0 when the device renewed by itself.
    by_login BIGINT NOT NULL,
    -- The newest renewal order that there was when it was issued: it concerns the ones after that.
    newest_order BIGINT NOT NULL,
    subject TEXT NOT NULL,
    common_name TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    first_used_at BIGINT,
    revoked_at BIGINT,
    revocation_reason TEXT,
    der BLOB NOT NULL,
    UNIQUE (device, key)
);
CREATE INDEX certificate_generation ON certificate (device, generation);
CREATE INDEX certificate_end ON certificate (not_after, serial);
CREATE INDEX certificate_state_end ON certificate (state, not_after, serial);
CREATE INDEX certificate_revoked ON certificate (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificate_owner ON certificate (owner, issued_at);

CREATE TABLE crl (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    number BIGINT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    -- How many certificates were revoked, ever, when the list was begun.
    revocations BIGINT NOT NULL,
    der BLOB NOT NULL
);

CREATE TABLE audit_segment (
    id BLOB PRIMARY KEY,
    node TEXT NOT NULL,
    started_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit_event (
    segment BLOB NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    address TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload TEXT,
    payload_digest BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (segment, number)
) WITHOUT ROWID;
CREATE INDEX audit_event_time ON audit_event (at, segment, number);
CREATE INDEX audit_event_subject ON audit_event (subject, at, segment, number);

CREATE TABLE audit_checkpoint (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    message BLOB NOT NULL,
    signature BLOB NOT NULL
);

CREATE TABLE alert (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    device BLOB NOT NULL,
    detail TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    times BIGINT NOT NULL DEFAULT 1,
    closed_at BIGINT
);
-- What happens again to the same device is one open alert.
CREATE UNIQUE INDEX alert_open ON alert (kind, device) WHERE closed_at IS NULL;
CREATE INDEX alert_device ON alert (device, number);
CREATE TABLE collection (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE membership (
    collection BIGINT NOT NULL,
    device BLOB NOT NULL,
    PRIMARY KEY (collection, device)
) WITHOUT ROWID;
CREATE INDEX membership_device ON membership (device, collection);

-- An administrator's order: certificates of its scope that were issued before it are renewed in its
-- window.
CREATE TABLE renewal_order (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    collection BIGINT,
    device BLOB,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    explanation_url TEXT
);

-- Two devices that an administrator keeps apart, though they claim the same hardware; a < b.
CREATE TABLE device_distinct (
    a BLOB NOT NULL,
    b BLOB NOT NULL,
    PRIMARY KEY (a, b)
) WITHOUT ROWID;
CREATE INDEX device_distinct_b ON device_distinct (b);

-- What is left of a device that was deleted long ago: nobody comes back as it.
CREATE TABLE device_gone (
    device BLOB PRIMARY KEY,
    -- Until when it has certificates that a revocation list needs.
    certificates_until BIGINT
) WITHOUT ROWID;
CREATE INDEX device_gone_until ON device_gone (certificates_until)
    WHERE certificates_until IS NOT NULL;

-- One row: how many revoked certificates were removed with their devices. The number of revocations
-- never falls.
CREATE TABLE purged (one INTEGER PRIMARY KEY CHECK (one = 1), revocations BIGINT NOT NULL);
