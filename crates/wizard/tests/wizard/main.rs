//! The windows without a screen: every page by its names and roles, by keyboard alone, in both languages,
//! at 200 %, light and dark; and the way to the agent over a real socket.

mod client;
mod desk;
mod enroll;
mod looks;
mod painter;
mod preferences;
mod program;
mod renew;
