//! The windows that a user sees: the Renew Certificate Wizard, the enrollment wizard and the preference
//! page. They talk to the agent over its local socket (`protocol`'s `/local/v1/…`), hold no key, and hand
//! a password over once. `perennial-agent renew` does the same on a terminal.

pub mod agent;
pub mod desktop;
pub mod diagnostics;
pub mod enroll;
pub mod instance;
pub mod preferences;
pub mod remind;
pub mod renew;
pub mod scene;
pub mod secret;
pub mod theme;
pub mod widgets;
pub mod window;
pub mod words;
pub mod worker;
