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
    -- Facts that filters compare; NULL where nothing was reported. Versions in a form that sorts.
    model TEXT,
    os_name TEXT,
    os_release TEXT,
    os_version TEXT,
    agent_version TEXT,
    hardware_serial TEXT,
    trust_verified BIGINT,
    -- The record that took this one's place.
    successor BLOB,
    -- The record that this one takes the place of, once it is used.
    predecessor BLOB,
    -- An administrator allows one renewal after expiry until then.
    renewal_allowed_until BIGINT,
    -- What it claims, where two devices that claim it may be one computer; and since when.
    hardware_uuid TEXT,
    hardware_reported_at BIGINT,
    -- The policy that it said it has, and why it does not run it.
    policy_epoch BIGINT,
    policy_counter BIGINT,
    policy_problem TEXT,
    deleted_at BIGINT
) WITHOUT ROWID;
CREATE INDEX device_name ON device (host_name, id);
CREATE INDEX device_state ON device (state, host_name, id);
CREATE INDEX device_successor ON device (successor) WHERE successor IS NOT NULL;
CREATE INDEX device_hardware ON device (state, hardware_uuid, enrolled_at, id)
    WHERE hardware_uuid IS NOT NULL;
CREATE INDEX device_enrolled ON device (enrolled_at);
CREATE INDEX device_deleted ON device (deleted_at, id) WHERE deleted_at IS NOT NULL;

CREATE TABLE device_seen (device BLOB PRIMARY KEY, at BIGINT NOT NULL) WITHOUT ROWID;
CREATE INDEX device_seen_at ON device_seen (at);

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
    -- What it is about: one of the two, or the site.
    device BLOB,
    deployment BIGINT,
    detail TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    times BIGINT NOT NULL DEFAULT 1,
    closed_at BIGINT
);
-- What happens again to the same device, or deployment, is one open alert.
CREATE UNIQUE INDEX alert_open ON alert (kind, device) WHERE closed_at IS NULL;
CREATE UNIQUE INDEX alert_open_deployment ON alert (kind, deployment) WHERE closed_at IS NULL;
CREATE INDEX alert_device ON alert (device, number);
CREATE TABLE collection (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    -- NULL for the built-ins.
    created_at BIGINT,
    -- Only members of that collection become members; NULL for two of the built-ins.
    limited_to BIGINT,
    -- In the filter language.
    query TEXT
);

-- Another collection whose members are members here, or are not: 1 or 0. The last one wins.
CREATE TABLE collection_other (
    collection BIGINT NOT NULL,
    other BIGINT NOT NULL,
    includes BIGINT NOT NULL,
    PRIMARY KEY (collection, other, includes)
) WITHOUT ROWID;

-- A device that an administrator named.
CREATE TABLE collection_direct (
    collection BIGINT NOT NULL,
    device BLOB NOT NULL,
    PRIMARY KEY (collection, device)
) WITHOUT ROWID;
CREATE INDEX collection_direct_device ON collection_direct (device, collection);

-- What the rules come to: worked out, never written by hand.
CREATE TABLE membership (
    collection BIGINT NOT NULL,
    device BLOB NOT NULL,
    PRIMARY KEY (collection, device)
) WITHOUT ROWID;
CREATE INDEX membership_device ON membership (device, collection);

-- How many members a collection has. Written by whoever holds `membership_time`.
CREATE TABLE membership_count (collection BIGINT PRIMARY KEY, members BIGINT NOT NULL) WITHOUT ROWID;

-- Devices that something happened to: their memberships are worked out anew.
CREATE TABLE membership_due (device BLOB PRIMARY KEY) WITHOUT ROWID;

-- Collections whose rules changed, or that are gone: all devices are looked at, up to one so far.
CREATE TABLE membership_evaluation (
    collection BIGINT PRIMARY KEY,
    reached BLOB NOT NULL
) WITHOUT ROWID;

-- One row: the moment for which memberships hold that change with time. Whoever changes rules or
-- works out memberships holds it.
CREATE TABLE membership_time (one INTEGER PRIMARY KEY CHECK (one = 1), at BIGINT NOT NULL);
INSERT INTO membership_time (one, at) VALUES (1, 0);

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

-- Compliance.

-- One row: the version of the policy. The counter rises with each change that can alter a device's
-- list; so does `objects`, but not with memberships: what a node remembers of deployments is good until
-- then. The row's lock orders the changes of objects.
CREATE TABLE policy (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch BIGINT NOT NULL,
    counter BIGINT NOT NULL,
    objects BIGINT NOT NULL
);
INSERT INTO policy (one, epoch, counter, objects) VALUES (1, 1, 0, 0);

-- A key that nodes signed policy with, by its digest.
CREATE TABLE policy_key (key BLOB PRIMARY KEY, noted_at BIGINT NOT NULL) WITHOUT ROWID;

-- One that was deleted stays, and its revisions with it: they are what devices ran.
CREATE TABLE configuration_item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    latest BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX configuration_item_name ON configuration_item (name) WHERE deleted_at IS NULL;

-- A revision never changes.
CREATE TABLE item_revision (
    item BIGINT NOT NULL,
    number BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    author TEXT NOT NULL,
    -- As it was given: domain's ItemContent.
    content TEXT NOT NULL,
    -- In words, for lists.
    platforms TEXT NOT NULL,
    -- What devices fetch: its hash, and the bytes.
    body_hash BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL,
    PRIMARY KEY (item, number)
);

-- A rule of an item. Another definition under the same name is another rule; revisions that do not
-- change a rule share it. Its severity is that of the newest revision that has it.
CREATE TABLE rule (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    item BIGINT NOT NULL,
    name TEXT NOT NULL,
    definition BLOB NOT NULL,
    severity TEXT NOT NULL,
    UNIQUE (item, definition)
);

CREATE TABLE revision_rule (
    item BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    rule BIGINT NOT NULL,
    PRIMARY KEY (item, revision, rule)
) WITHOUT ROWID;

CREATE TABLE baseline (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    -- Rises with each change: who changes what somebody else changed meanwhile is told.
    version BIGINT NOT NULL
);

-- A configuration item, at a revision or always the latest, or another baseline.
CREATE TABLE baseline_part (
    baseline BIGINT NOT NULL,
    position BIGINT NOT NULL,
    item BIGINT,
    revision BIGINT,
    part BIGINT,
    PRIMARY KEY (baseline, position)
) WITHOUT ROWID;
CREATE INDEX baseline_part_item ON baseline_part (item) WHERE item IS NOT NULL;
CREATE INDEX baseline_part_part ON baseline_part (part) WHERE part IS NOT NULL;

CREATE TABLE deployment (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    baseline BIGINT NOT NULL,
    collection BIGINT NOT NULL,
    remediate BIGINT NOT NULL,
    schedule TEXT NOT NULL,
    spread BIGINT NOT NULL,
    remediation_window TEXT,
    stale_after BIGINT NOT NULL,
    alert_below BIGINT,
    alert_at BIGINT,
    made_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    -- The `alert_at` whose moment came, and was acted on.
    alert_judged_at BIGINT
);
CREATE INDEX deployment_alert ON deployment (alert_at) WHERE alert_at IS NOT NULL;
CREATE INDEX deployment_baseline ON deployment (baseline);
CREATE INDEX deployment_collection ON deployment (collection);

-- What a deployment comes to, worked out when something of it changes: the revisions that its devices
-- get, one of each item, and their rules. Empty while its baseline is not enabled.
CREATE TABLE deployment_item (
    deployment BIGINT NOT NULL,
    item BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (deployment, item)
) WITHOUT ROWID;
CREATE INDEX deployment_item_item ON deployment_item (item);
CREATE TABLE deployment_rule (
    deployment BIGINT NOT NULL,
    rule BIGINT NOT NULL,
    PRIMARY KEY (deployment, rule)
) WITHOUT ROWID;
CREATE INDEX deployment_rule_rule ON deployment_rule (rule, deployment);

-- A rule that a device, or a collection, need not keep.
CREATE TABLE exemption (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    item BIGINT NOT NULL,
    rule TEXT NOT NULL,
    device BLOB,
    collection BIGINT,
    reason TEXT NOT NULL,
    until BIGINT,
    made_at BIGINT NOT NULL,
    made_by TEXT NOT NULL,
    -- When it was removed, or its end was noticed.
    ended_at BIGINT
);
CREATE INDEX exemption_item ON exemption (item, rule);
CREATE INDEX exemption_device ON exemption (device) WHERE device IS NOT NULL;
CREATE INDEX exemption_collection ON exemption (collection) WHERE collection IS NOT NULL;
CREATE INDEX exemption_open ON exemption (until, number) WHERE ended_at IS NULL;

-- A command for a device: signed, single-use.
CREATE TABLE command (
    id BLOB PRIMARY KEY,
    device BLOB NOT NULL,
    what TEXT NOT NULL,
    -- Of a test: the item, its revision and the setting.
    about TEXT NOT NULL,
    document TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    issued_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- 1: the device did it, 0: it could not; none of one that expired.
    done BIGINT,
    detail TEXT
);
CREATE INDEX command_device ON command (device, issued_at, id);
CREATE INDEX command_open ON command (device) WHERE ended_at IS NULL;

-- A device that reported results, by a short number. Their moments are in seconds: short, too.
CREATE TABLE compliance_device (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    device BLOB NOT NULL UNIQUE,
    stream BLOB NOT NULL,
    -- The last change of the stream that is recorded here.
    sequence BIGINT NOT NULL,
    -- Of the device's set after it.
    digest BLOB NOT NULL,
    evaluated_at BIGINT NOT NULL
);
CREATE INDEX compliance_device_evaluated ON compliance_device (evaluated_at);

-- What devices found, and why something could not be found out or done: each pair once. Without a
-- digest it is on its way out.
CREATE TABLE value (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB UNIQUE,
    text TEXT,
    reason TEXT
);

-- How a rule stands on a device, since when. States are codes of domain's ComplianceState.
CREATE TABLE rule_state (
    device INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    since BIGINT NOT NULL,
    value INTEGER,
    state SMALLINT NOT NULL,
    PRIMARY KEY (device, rule)
) WITHOUT ROWID;

-- How it stood before. Intervals of a rule on a device do not overlap, and none is empty.
CREATE TABLE rule_state_past (
    device INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    until BIGINT NOT NULL,
    since BIGINT NOT NULL,
    value INTEGER,
    state SMALLINT NOT NULL,
    PRIMARY KEY (device, rule, until)
) WITHOUT ROWID;

-- How often a rule's state changed on a day (since 1970, UTC), on all devices; and how often it came
-- back to the state before: in parts, as `summary`.
CREATE TABLE rule_change (
    day INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    node TEXT NOT NULL,
    changes BIGINT NOT NULL,
    returns BIGINT NOT NULL,
    PRIMARY KEY (day, rule, node)
) WITHOUT ROWID;

-- How a deployment stands on a device of its collection: the greatest state of its rules, remediated
-- taken as compliant, and a failed remediation as non-compliant. No row: the device has not reported
-- all of them. `notable` has the rules that are not simply compliant, as they count in `rule_summary`.
CREATE TABLE deployment_state (
    device BLOB NOT NULL,
    deployment BIGINT NOT NULL,
    since BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    notable BLOB NOT NULL,
    PRIMARY KEY (device, deployment)
) WITHOUT ROWID;
CREATE INDEX deployment_state_state ON deployment_state (deployment, state, device, since);

-- How it stood before. Intervals of a deployment on a device do not overlap, and none is empty.
CREATE TABLE deployment_state_past (
    device BLOB NOT NULL,
    deployment BIGINT NOT NULL,
    until BIGINT NOT NULL,
    since BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    PRIMARY KEY (device, deployment, until)
) WITHOUT ROWID;
CREATE INDEX deployment_state_past_until ON deployment_state_past (deployment, until, since, state, device);

-- How many rows of deployment_state a deployment has in a state, in parts: each node adds to its own
-- rows, in the transaction that changes the states, and a reader sums them.
CREATE TABLE summary (
    deployment BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    node TEXT NOT NULL,
    devices BIGINT NOT NULL,
    PRIMARY KEY (deployment, state, node)
) WITHOUT ROWID;

-- The same for each rule of a deployment: how many rows of deployment_state have it in `notable`, in
-- which state. All others are compliant.
CREATE TABLE rule_summary (
    deployment BIGINT NOT NULL,
    rule BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    node TEXT NOT NULL,
    devices BIGINT NOT NULL,
    PRIMARY KEY (deployment, rule, state, node)
) WITHOUT ROWID;

-- Deployments whose devices' states have to be worked out anew, after a place of the walk; from the
-- beginning when it is NULL. A deployment that is gone has its states removed.
CREATE TABLE deployment_due (
    deployment BIGINT PRIMARY KEY,
    after BLOB,
    -- 1: its rules changed, so that what is counted already says nothing of new ones.
    anew SMALLINT NOT NULL DEFAULT 1,
    -- Grows with each step: the lowest one is next.
    step BIGINT NOT NULL DEFAULT 0
) WITHOUT ROWID;
