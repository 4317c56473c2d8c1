//! The windows that a user sees: the Renew Certificate Wizard, the enrollment wizard and the
//! preference page. They talk to the agent over `protocol` and hold no key. The place is kept;
//! until the windows are here, `perennial-agent` does their work on a terminal.
