//! The real programs on a real desktop (in memory, under Xvfb): the agent reminds, the session part opens
//! the wizard, a person types, and the site knows. What they see is read as a screen reader reads it, and
//! kept as pictures in `target/screenshots/desktop`.

mod office;

mod enrolling;
mod reminding;
mod renewing;
mod secrecy;
mod wayland;
